// Candidates of an anchor network, equal to lidar/anchors.py. Compiled for one network:
//   ANCHORS, CHANNELS, ROWS, COLUMNS;
//   OWNERS, LABELS: anchor and label of every score channel; FIRST: first channel of every anchor,
//   and CHANNELS; TOGETHER: channels of an anchor that are loaded at a time;
//   SCORES, BOXES, FRONTS: how these outputs lie in memory, one of the formats below.
#include "common.cuh"
#include "frame.cuh"

#define LINEAR_FLOAT 0  // [channels, rows, columns]
#define LINEAR_HALF 1
#define HWC8_HALF 2  // [rows, columns, channels rounded up to 8]

constexpr uint32_t CELLS = ROWS * COLUMNS;
constexpr uint32_t PLACES = 0x1ffffff;  // 2^25 - 1
constexpr double PI = 3.141592653589793;

struct Shape {  // of an anchor, as the launcher writes it
  double length, width, height, z, yaw, diagonal;
};

// ---- reading outputs ------------------------------------------------------------------------------

template <int LAYOUT>
__device__ __forceinline__ float value_at(const void* tensor, uint32_t channels, uint32_t channel,
                                          uint32_t cell) {
  if (LAYOUT == LINEAR_FLOAT) {
    return static_cast<const float*>(tensor)[channel * CELLS + cell];
  } else if (LAYOUT == LINEAR_HALF) {
    return from_half(static_cast<const uint16_t*>(tensor)[channel * CELLS + cell]);
  } else {
    const uint32_t padded = (channels + 7u) & ~7u;
    return from_half(static_cast<const uint16_t*>(tensor)[cell * padded + channel]);
  }
}

__device__ __forceinline__ void unpack(const uint4& words, float (&values)[8]) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    values[2 * i] = from_half(static_cast<uint16_t>(word[i] & 0xffffu));
    values[2 * i + 1] = from_half(static_cast<uint16_t>(word[i] >> 16));
  }
}

__device__ __forceinline__ void unpack(const uint4& words, float (&values)[4]) {
  values[0] = __uint_as_float(words.x);
  values[1] = __uint_as_float(words.y);
  values[2] = __uint_as_float(words.z);
  values[3] = __uint_as_float(words.w);
}

// ---- scanning the scores ------------------------------------------------------------------------

// The best label of one anchor at one cell among those that reach their threshold.
struct Claim {
  float logit;
  int32_t label;  // -1: none
};

// Infinity as threshold is reached by nothing, not even by an infinite score.
__device__ __forceinline__ void consider(Claim& claim, float logit, int32_t label, float least) {
  if (!(logit >= least) || least == infinity()) return;
  const bool better = claim.label < 0 || logit > claim.logit ||
                      (logit == claim.logit && label < claim.label);
  if (better) claim = {logit, label};
}

__device__ __forceinline__ uint64_t key_of(const Claim& claim, uint32_t place) {
  const uint32_t score = ordered(claim.logit + 0.0f);  // -0 equals 0
  return static_cast<uint64_t>(score) << 32 | static_cast<uint64_t>((PLACES - place) << 7) |
         static_cast<uint64_t>(claim.label);
}

template <uint32_t N>
__device__ __forceinline__ void append(const Claim (&claims)[N], uint32_t place, uint32_t step,
                                       uint64_t* keys, uint32_t* count) {
  uint32_t found = 0;
#pragma unroll
  for (uint32_t i = 0; i < N; ++i) found += claims[i].label >= 0;
  if (found == 0) return;
  uint32_t slot = atomicAdd(count, found);
#pragma unroll
  for (uint32_t i = 0; i < N; ++i) {
    if (claims[i].label >= 0) keys[slot++] = key_of(claims[i], place + i * step);
  }
}

#if SCORES == HWC8_HALF

// A thread a cell.
__device__ __forceinline__ void search(const void* __restrict__ scores,
                                       const Frame* __restrict__ frame, uint64_t* keys,
                                       uint32_t* count, uint32_t* flags) {
  constexpr int32_t owners[CHANNELS] = {OWNERS}, labels[CHANNELS] = {LABELS};
  constexpr uint32_t vectors = (CHANNELS + 7) / 8;
  const uint32_t cell = thread_index();
  if (cell >= CELLS) return;
  Claim claims[ANCHORS];
#pragma unroll
  for (uint32_t i = 0; i < ANCHORS; ++i) claims[i] = {0.0f, -1};
  bool nan = false;
#pragma unroll
  for (uint32_t vector = 0; vector < vectors; ++vector) {
    float values[8];
    unpack(static_cast<const uint4*>(scores)[cell * vectors + vector], values);
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {
      const uint32_t channel = vector * 8 + i;
      if (channel < CHANNELS) {
        nan |= not_a_number(values[i]);
        consider(claims[owners[channel]], values[i], labels[channel],
                 frame->thresholds[labels[channel]]);
      }
    }
  }
  if (nan) atomicOr(flags, NAN_SCORE);
  append(claims, cell, CELLS, keys, count);
}

#else

// Values that one load of 16 bytes brings, where every channel begins at such an address.
constexpr uint32_t FULL = SCORES == LINEAR_FLOAT ? 4 : 8;
constexpr uint32_t WIDE = CELLS % FULL == 0 ? FULL : 1;

__constant__ int32_t channel_labels[CHANNELS] = {LABELS};
__constant__ int32_t first_channels[ANCHORS + 1] = {FIRST};

template <uint32_t N>
__device__ __forceinline__ void fetch(const void* scores, uint32_t channel, uint32_t cell,
                                      float (&values)[N]) {
  if constexpr (N == 1) {
    values[0] = value_at<SCORES>(scores, CHANNELS, channel, cell);
  } else {
    unpack(static_cast<const uint4*>(scores)[(channel * CELLS + cell) / N], values);
  }
}

// A thread for WIDE cells of one anchor, the anchor is blockIdx.y.
__device__ __forceinline__ void search(const void* __restrict__ scores,
                                       const Frame* __restrict__ frame, uint64_t* keys,
                                       uint32_t* count, uint32_t* flags) {
  const uint32_t cell = thread_index() * WIDE, anchor = blockIdx.y;
  if (cell >= CELLS) return;
  Claim claims[WIDE];
#pragma unroll
  for (uint32_t i = 0; i < WIDE; ++i) claims[i] = {0.0f, -1};
  bool nan = false;
  const int32_t first = first_channels[anchor], last = first_channels[anchor + 1] - 1;
  for (int32_t start = first; start <= last; start += TOGETHER) {
    float values[TOGETHER][WIDE], least[TOGETHER];
    int32_t label[TOGETHER];
#pragma unroll
    for (int32_t k = 0; k < TOGETHER; ++k) {  // the last channel may be looked at twice
      fetch(scores, min(start + k, last), cell, values[k]);
      label[k] = channel_labels[min(start + k, last)];
      least[k] = frame->thresholds[label[k]];
    }
#pragma unroll
    for (int32_t k = 0; k < TOGETHER; ++k) {
#pragma unroll
      for (uint32_t i = 0; i < WIDE; ++i) {
        nan |= not_a_number(values[k][i]);
        consider(claims[i], values[k][i], label[k], least[k]);
      }
    }
  }
  if (nan) atomicOr(flags, NAN_SCORE);
  append(claims, anchor * CELLS + cell, 1, keys, count);
}

#endif

KERNEL __launch_bounds__(128)
scan(const void* __restrict__ scores, const Frame* __restrict__ frame, uint64_t* keys,
     uint32_t* count, uint32_t* flags) {
  search(scores, frame, keys, count, flags);
}

// ---- boxes of the best ----------------------------------------------------------------------------

// Yaw in [-pi, pi), rounded to float32 within it: as _headed and wrap_angle. In double precision:
// where it comes near the end of a half circle, the half must be that of the specification.
__device__ __forceinline__ float headed(double yaw, bool behind, double offset) {
  double half = yaw - offset;
  half = half - floor(half / PI) * PI;
  const double angle = half + offset + (behind ? PI : 0.0);
  const double wrapped = angle - floor((angle + PI) / (2.0 * PI)) * (2.0 * PI);
  return fminf(fmaxf(static_cast<float>(wrapped), -3.1415925f), 3.1415925f);
}

// A thread for each of the best: its row x, y, z, length, width, height, yaw, score.
KERNEL __launch_bounds__(64)
boxes(const void* __restrict__ codes, const void* __restrict__ fronts,
      const Shape* __restrict__ shapes, const double* __restrict__ xs,
      const double* __restrict__ ys, double direction_offset, const uint64_t* __restrict__ best,
      const uint32_t* n, float* rows, uint32_t* flags) {
  const uint32_t i = thread_index();
  if (i >= *n) return;
  const uint64_t key = best[i];
  const uint32_t place = PLACES - (static_cast<uint32_t>(key) >> 7);
  const uint32_t anchor = place / CELLS, cell = place % CELLS;
  float code[7];
#pragma unroll
  for (uint32_t k = 0; k < 7; ++k) {
    code[k] = value_at<BOXES>(codes, ANCHORS * 7, anchor * 7 + k, cell);
  }
  const float ahead = value_at<FRONTS>(fronts, ANCHORS * 2, anchor * 2, cell);
  const float back = value_at<FRONTS>(fronts, ANCHORS * 2, anchor * 2 + 1, cell);
  // the first of the largest, NaN being larger than all: argmax
  const bool behind = !not_a_number(ahead) && (not_a_number(back) || back > ahead);
  const Shape shape = shapes[anchor];
  const float logit = from_ordered(static_cast<uint32_t>(key >> 32));
  float row[8];
  row[0] = static_cast<float>(code[0] * shape.diagonal + xs[cell % COLUMNS]);
  row[1] = static_cast<float>(code[1] * shape.diagonal + ys[cell / COLUMNS]);
  row[2] = static_cast<float>(code[2] * shape.height + shape.z);
  row[3] = expf(code[3]) * static_cast<float>(shape.length);
  row[4] = expf(code[4]) * static_cast<float>(shape.width);
  row[5] = expf(code[5]) * static_cast<float>(shape.height);
  row[6] = finite(code[6]) ? headed(code[6] + shape.yaw, behind, direction_offset) : code[6];
  row[7] = 1.0f / (1.0f + expf(-logit));
  bool bad = false;
#pragma unroll
  for (uint32_t k = 0; k < 7; ++k) bad |= !finite(row[k]);
  if (bad) atomicOr(flags, BAD_BOX);
  float4* out = reinterpret_cast<float4*>(rows + 8 * i);
  out[0] = make_float4(row[0], row[1], row[2], row[3]);
  out[1] = make_float4(row[4], row[5], row[6], row[7]);
}
