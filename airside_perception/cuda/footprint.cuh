// Whether the footprints of two boxes overlap by more than an IoU, as overlap.py computes it.
//
// Decisions are those of float64: single precision decides where its error cannot matter (SLACK),
// double precision the few pairs that are left. Rows of boxes are (x, y, z, length, width, height,
// yaw, score).
#pragma once

#include "common.cuh"

constexpr float SLACK = 5e-7f;  // bound of the error of an area in float32, in parts of extent^2

// Aligned so that what is compared first is one read.
struct __align__(16) Footprint {
  float x, y, half_x, half_y, half_length, half_width, c, s;
  uint32_t group;
};

__device__ __forceinline__ Footprint footprint(const float* __restrict__ row, uint32_t group) {
  const float4 a = reinterpret_cast<const float4*>(row)[0];
  const float4 b = reinterpret_cast<const float4*>(row)[1];
  Footprint f;
  f.x = a.x;
  f.y = a.y;
  f.half_length = 0.5f * a.w;
  f.half_width = 0.5f * b.x;
  f.c = cosf(b.z);
  f.s = sinf(b.z);
  f.half_x = fabsf(f.c) * f.half_length + fabsf(f.s) * f.half_width;
  f.half_y = fabsf(f.s) * f.half_length + fabsf(f.c) * f.half_width;
  f.group = group;
  return f;
}

template <typename Real>
__device__ __forceinline__ Real clipped(Real x, Real low, Real high) {
  return x < low ? low : x > high ? high : x;
}

// Minus twice the integral of g dx along the edge from (x, y) by (run, rise), see overlap.py.
template <typename Real>
__device__ __forceinline__ Real flux(Real x, Real y, Real run, Real rise, Real to_x, Real to_y,
                                     Real p, Real q) {
  const Real enter = (-p - x) * to_x, leave = (p - x) * to_x;
  const Real start = clipped(enter < leave ? enter : leave, Real(0), Real(1));
  const Real stop = clipped(enter < leave ? leave : enter, start, Real(1));
  const Real lower = (-q - y) * to_y, upper = (q - y) * to_y;
  const Real knee = clipped(lower < upper ? lower : upper, start, stop);
  const Real shoulder = clipped(lower < upper ? upper : lower, knee, stop);
  const Real g_start = clipped(y + start * rise, -q, q), g_knee = clipped(y + knee * rise, -q, q);
  const Real g_shoulder = clipped(y + shoulder * rise, -q, q);
  const Real g_stop = clipped(y + stop * rise, -q, q);
  return -run * ((knee - start) * (g_start + g_knee) + (shoulder - knee) * (g_knee + g_shoulder) +
                 (stop - shoulder) * (g_shoulder + g_stop));
}

template <typename Real>
__device__ __forceinline__ Real inverse(Real x, Real least) {
  return x > least || x < -least ? Real(1) / x : Real(0);
}

// Area that a rectangle of half extents (h, w), at (x, y) and turned by (c, s), shares with the
// rectangle |x| <= p, |y| <= q. `least`: a slope below it counts as none.
template <typename Real>
__device__ __forceinline__ Real shared_area(Real x, Real y, Real h, Real w, Real c, Real s, Real p,
                                            Real q, Real least) {
  const Real u = h * c, v = w * s, a = h * s, b = w * c;
  const Real to_u = inverse(2 * u, least), to_v = inverse(2 * v, least);
  const Real to_a = inverse(2 * a, least), to_b = inverse(2 * b, least);
  return Real(0.5) * (flux(x + u - v, y + a + b, -2 * u, -2 * a, -to_u, -to_a, p, q) +
                      flux(x - u - v, y - a + b, 2 * v, -2 * b, to_v, -to_b, p, q) +
                      flux(x - u + v, y - a - b, 2 * u, 2 * a, to_u, to_a, p, q) +
                      flux(x + u + v, y + a - b, -2 * v, 2 * b, -to_v, to_b, p, q));
}

// The area that two footprints share, to SLACK, computed relative to the centre of `worse`.
__device__ __forceinline__ float roughly_shared(const Footprint& better, const Footprint& worse) {
  const float dx = better.x - worse.x, dy = better.y - worse.y;
  return shared_area(worse.c * dx + worse.s * dy, worse.c * dy - worse.s * dx, better.half_length,
                     better.half_width, better.c * worse.c + better.s * worse.s,
                     better.s * worse.c - better.c * worse.s, worse.half_length, worse.half_width,
                     1e-30f);
}

// The same as footprint_overlap of overlap.py, from the rows.
__device__ __noinline__ double exactly_shared(const float* better, const float* worse) {
  const double length = better[3], width = better[4], p = worse[3] * 0.5, q = worse[4] * 0.5;
  const double yaw = worse[6], turn = better[6] - yaw, c = cos(yaw), s = sin(yaw);
  const double dx = static_cast<double>(better[0]) - worse[0];
  const double dy = static_cast<double>(better[1]) - worse[1];
  const double smaller = length * width < 4 * p * q ? length * width : 4 * p * q;
  const double shared = shared_area(c * dx + s * dy, c * dy - s * dx, 0.5 * length, 0.5 * width,
                                    cos(turn), sin(turn), p, q, 1e-200);
  return shared > 1e-9 * smaller ? (shared < smaller ? shared : smaller) : 0.0;
}

// Bound of the error of an area of this pair in single precision, in m^2.
__device__ __forceinline__ float slack(const Footprint& a, const Footprint& b) {
  const float extent = a.half_length + a.half_width + b.half_length + b.half_width;
  return SLACK * extent * extent;
}

__device__ __forceinline__ float total_area(const Footprint& a, const Footprint& b) {
  return 4.0f * (a.half_length * a.half_width + b.half_length * b.half_width);
}

// What `maybe_more` asks first: false where bounds are clearly apart.
__device__ __forceinline__ bool bounds_touch(const Footprint& a, const Footprint& b) {
  const float reach_x = a.half_x + b.half_x, reach_y = a.half_y + b.half_y;
  const float apart = 1e-6f * (reach_x + reach_y);
  return !(fabsf(a.x - b.x) > reach_x + 2.0f * apart) &
         !(fabsf(a.y - b.y) > reach_y + 2.0f * apart);
}

// Whether two footprints may overlap by more than `iou`, judged by their bounds.
__device__ __forceinline__ bool maybe_more(const Footprint& a, const Footprint& b, float iou) {
  const float x = fminf(a.half_x + b.half_x - fabsf(a.x - b.x), 2.0f * fminf(a.half_x, b.half_x));
  const float y = fminf(a.half_y + b.half_y - fabsf(a.y - b.y), 2.0f * fminf(a.half_y, b.half_y));
  const float margin = slack(a, b), reach = a.half_x + b.half_x + a.half_y + b.half_y;
  if (!(x > -1e-6f * reach && y > -1e-6f * reach)) return false;
  float shared = fmaxf(x, 0.0f) * fmaxf(y, 0.0f) + margin;
  shared = fminf(shared, fminf(4.0f * a.half_length * a.half_width,
                               4.0f * b.half_length * b.half_width));
  return shared - iou * (total_area(a, b) - shared) >= -2.0f * margin;
}

// Whether two footprints overlap by more than `iou`. Their rows serve the doubtful case.
__device__ __forceinline__ bool more(const Footprint& better, const Footprint& worse, float iou,
                                     const float* better_row, const float* worse_row) {
  const float shared = roughly_shared(better, worse), margin = 2.0f * slack(better, worse);
  const float excess = shared - iou * (total_area(better, worse) - shared);
  if (excess > margin) return true;
  if (excess < -margin) return false;
  const double exact = exactly_shared(better_row, worse_row);
  const double areas = static_cast<double>(better_row[3]) * better_row[4] +
                       static_cast<double>(worse_row[3]) * worse_row[4];
  return exact > iou * (areas - exact);
}
