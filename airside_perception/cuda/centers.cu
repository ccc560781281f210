// The outputs of a centre head to candidates and boxes, as lidar/centers.py says; launched by
// lidar/gpu_centers.py, which says what the options are:
//
//   LABELS                            classes of the network
//   PEAKS                             1: only local maxima are candidates
//   CELLS                             neighbouring cells of a thread of `scan`, 1 or 4
//   HEATMAP, OFFSET, HEIGHT, SIZE,    how an output lies in memory: FP32, FP16 (both linear) or
//   ROTATION, and VELOCITY where      HWC8
//   there is one
#include "common.cuh"
#include "frame.cuh"

enum Format { FP32, FP16, HWC8 };

constexpr float PI = 3.14159274f;
constexpr uint32_t NOBODY = 0xffffffffu;
constexpr uint32_t LAST_PLACE = 0x1ffffffu;  // keys hold how far a place is from it

// One value of an output with so many channels on so many cells.
template <int FORMAT, uint32_t CHANNELS>
__device__ __forceinline__ float value_at(const void* output, uint32_t channel, uint32_t cell,
                                          uint32_t cells) {
  if (FORMAT == FP32) return __ldg(static_cast<const float*>(output) + channel * cells + cell);
  const uint32_t index =
      FORMAT == FP16 ? channel * cells + cell : cell * ((CHANNELS + 7u) / 8u * 8u) + channel;
  return from_half(__ldg(static_cast<const uint16_t*>(output) + index));
}

// Whether none of the eight cells around has a higher logit of the label.
__device__ __forceinline__ bool is_peak(const void* heatmap, float own, uint32_t label,
                                        uint32_t cell, int rows, int columns) {
  const int row = static_cast<int>(cell) / columns, column = static_cast<int>(cell) % columns;
  for (int y = max(row - 1, 0); y <= min(row + 1, rows - 1); ++y) {
    for (int x = max(column - 1, 0); x <= min(column + 1, columns - 1); ++x) {
      const float other = value_at<HEATMAP, LABELS>(
          heatmap, label, static_cast<uint32_t>(y * columns + x),
          static_cast<uint32_t>(rows * columns));
      if (!(own >= other)) return false;
    }
  }
  return true;
}

// The best label of a cell so far.
struct Claim {
  float logit;
  uint32_t label;
};

__device__ __forceinline__ void consider(Claim& claim, uint32_t& broken, float logit,
                                         uint32_t label, float threshold, const void* heatmap,
                                         uint32_t cell, int rows, int columns) {
  broken |= not_a_number(logit);
  if (!(logit >= threshold) || threshold == infinity()) return;
  if (claim.label != NOBODY && !(logit > claim.logit)) return;
  if (PEAKS && !is_peak(heatmap, logit, label, cell, rows, columns)) return;
  claim.logit = logit;
  claim.label = label;
}

// The claims of CELLS neighbouring cells.
__device__ __forceinline__ void find(Claim* claims, uint32_t& broken, const void* heatmap,
                                     const Frame* frame, uint32_t first, int rows, int columns) {
#if HEATMAP == 2
  static_assert(HWC8 == 2 && CELLS == 1, "eight channels of a cell lie side by side");
  const uint4* values = static_cast<const uint4*>(heatmap) + first * ((LABELS + 7u) / 8u);
#pragma unroll 4
  for (uint32_t chunk = 0; chunk < (LABELS + 7u) / 8u; ++chunk) {
    const uint4 eight = __ldg(values + chunk);
    const uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (uint32_t i = 0; i < 8u; ++i) {
      const uint32_t label = chunk * 8u + i;
      if (label >= LABELS) break;
      const float logit = from_half(static_cast<uint16_t>(pairs[i / 2u] >> (i % 2u * 16u)));
      consider(claims[0], broken, logit, label, frame->thresholds[label], heatmap, first, rows,
               columns);
    }
  }
#else
  const uint32_t cells = static_cast<uint32_t>(rows * columns);
#pragma unroll 8
  for (uint32_t label = 0; label < LABELS; ++label) {
    const float threshold = frame->thresholds[label];
    float logits[CELLS];
#if CELLS == 1
    logits[0] = value_at<HEATMAP, LABELS>(heatmap, label, first, cells);
#elif HEATMAP == 0
    const float4 four = __ldg(reinterpret_cast<const float4*>(
        static_cast<const float*>(heatmap) + label * cells + first));
    logits[0] = four.x;
    logits[1] = four.y;
    logits[2] = four.z;
    logits[3] = four.w;
#else
    const uint2 four = __ldg(reinterpret_cast<const uint2*>(
        static_cast<const uint16_t*>(heatmap) + label * cells + first));
    logits[0] = from_half(static_cast<uint16_t>(four.x));
    logits[1] = from_half(static_cast<uint16_t>(four.x >> 16));
    logits[2] = from_half(static_cast<uint16_t>(four.y));
    logits[3] = from_half(static_cast<uint16_t>(four.y >> 16));
#endif
#pragma unroll
    for (uint32_t i = 0; i < CELLS; ++i) {
      consider(claims[i], broken, logits[i], label, threshold, heatmap, first + i, rows, columns);
    }
  }
#endif
}

// Rules 1 and 2, a thread for CELLS cells: a key for each cell with a label that reaches its
// threshold and a rotation that is long enough for it. Any order of the keys will do.
//
// least: squares of the least lengths of (sine, cosine), of every label.
KERNEL scan(const void* heatmap, const void* rotation, const float* least, const Frame* frame,
            uint64_t* keys, uint32_t* count, uint32_t* flags, int rows, int columns) {
  const uint32_t cells = static_cast<uint32_t>(rows * columns);
  const uint32_t first = thread_index() * CELLS;
  const bool inside = first < cells;  // CELLS divides the number of cells
  Claim claims[CELLS];
#pragma unroll
  for (uint32_t i = 0; i < CELLS; ++i) claims[i] = {0.0f, NOBODY};
  uint32_t broken = 0;
  if (inside) find(claims, broken, heatmap, frame, first, rows, columns);
  if (broken) atomicOr(flags, NAN_SCORE);

#pragma unroll
  for (uint32_t i = 0; i < CELLS; ++i) {
    bool found = claims[i].label != NOBODY;
    if (found && __ldg(least + claims[i].label) > 0.0f) {
      const float a = value_at<ROTATION, 2>(rotation, 0, first + i, cells);
      const float b = value_at<ROTATION, 2>(rotation, 1, first + i, cells);
      // what is NaN is not left out: `boxes` reports it
      found = !(__fadd_rn(__fmul_rn(a, a), __fmul_rn(b, b)) < __ldg(least + claims[i].label));
    }
    const uint32_t finders = __ballot_sync(ALL_LANES, found);
    if (finders == 0) continue;
    uint32_t place = 0;
    if (lane_index() == 0) place = atomicAdd(count, static_cast<uint32_t>(__popc(finders)));
    place = __shfl_sync(ALL_LANES, place, 0) + __popc(finders & ((1u << lane_index()) - 1u));
    if (found) {
      keys[place] = static_cast<uint64_t>(ordered(claims[i].logit)) << 32 |
                    static_cast<uint64_t>(LAST_PLACE - (first + i)) << 7 | claims[i].label;
    }
  }
}

// One thread for each of the best keys: its box (x, y, z, l, w, h, yaw, score).
//
// length, width, sine, cosine: their channels; x0, y0: lower corner of the grid; cell_x, cell_y:
// extent of a cell; yaw = sign * angle + zero. velocities: vx and vy of the same candidates.
KERNEL boxes(const void* offset, const void* height, const void* size, const void* rotation,
             const uint64_t* best, const uint32_t* found, float4* out, uint32_t* flags, int rows,
             int columns, int length, int width, int sine, int cosine, double x0, double y0,
             double cell_x, double cell_y, float sign, float zero
#ifdef VELOCITY
             ,
             const void* velocity, float* velocities
#endif
) {
  const uint32_t index = thread_index();
  if (index >= *found) return;
  const uint64_t key = best[index];
  const uint32_t cells = static_cast<uint32_t>(rows * columns);
  const uint32_t cell = LAST_PLACE - (static_cast<uint32_t>(key) >> 7);

  const float dx = value_at<OFFSET, 2>(offset, 0, cell, cells);
  const float dy = value_at<OFFSET, 2>(offset, 1, cell, cells);
  const float z = value_at<HEIGHT, 1>(height, 0, cell, cells);
  const float l = expf(value_at<SIZE, 3>(size, static_cast<uint32_t>(length), cell, cells));
  const float w = expf(value_at<SIZE, 3>(size, static_cast<uint32_t>(width), cell, cells));
  const float h = expf(value_at<SIZE, 3>(size, 2, cell, cells));
  const float s = value_at<ROTATION, 2>(rotation, static_cast<uint32_t>(sine), cell, cells);
  const float c = value_at<ROTATION, 2>(rotation, static_cast<uint32_t>(cosine), cell, cells);
  bool good = finite(dx) && finite(dy) && finite(z) && finite(l) && finite(w) && finite(h) &&
              finite(s) && finite(c);
#ifdef VELOCITY
  const float vx = value_at<VELOCITY, 2>(velocity, 0, cell, cells);
  const float vy = value_at<VELOCITY, 2>(velocity, 1, cell, cells);
  good = good && finite(vx) && finite(vy);
  velocities[2 * index] = vx;
  velocities[2 * index + 1] = vy;
#endif
  if (!good) {
    atomicOr(flags, BAD_BOX);  // the frame is lost; suppression still needs numbers
    out[2 * index] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    out[2 * index + 1] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return;
  }
  const double row = cell / static_cast<uint32_t>(columns);
  const double column = cell % static_cast<uint32_t>(columns);
  float yaw = sign * atan2f(s, c) + zero;
  if (yaw < -PI) yaw += 2.0f * PI;
  if (yaw >= PI) yaw -= 2.0f * PI;
  const float logit = from_ordered(static_cast<uint32_t>(key >> 32));
  out[2 * index] = make_float4(static_cast<float>((column + dx) * cell_x + x0),
                               static_cast<float>((row + dy) * cell_y + y0), z, l);
  out[2 * index + 1] = make_float4(w, h, yaw, 1.0f / (1.0f + expf(-logit)));
}
