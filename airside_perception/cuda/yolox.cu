// The rows of a YOLOX head to candidates and boxes, as camera/yolox.py says; launched by
// camera/gpu_yolox.py, which says what the options are:
//
//   HALF       1: the output is float16
//   ACTIVATED  1: objectness and class scores have passed the sigmoid in the network
#include "common.cuh"
#include "frame.cuh"

constexpr int LANES = 8;  // threads that share the classes of a cell
constexpr float FAR = 1e9f;  // pixels: finite boxes stay finite in the areas of suppression
constexpr float LONGEST = 709.78f;  // logarithm of a size that float64, the specification, holds

__device__ __forceinline__ float value_at(const void* output, uint32_t index) {
#if HALF
  return from_half(__ldg(static_cast<const uint16_t*>(output) + index));
#else
  return __ldg(static_cast<const float*>(output) + index);
#endif
}

__device__ __forceinline__ float probability(float value) {
#if ACTIVATED
  return value;
#else
  return __fdiv_rn(1.0f, 1.0f + expf(-value));
#endif
}

// LANES threads for each cell: the best published class of a cell whose objectness can reach the
// lowest threshold, and a key for it where it reaches its own. Any order of the keys will do.
//
// columns: of every label that is published, its place in a row | published class << 16.
KERNEL scan(const void* output, const uint32_t* columns, const Frame* frame, uint64_t* keys,
            uint32_t* count, uint32_t* flags, int labels, int published, int cells, int values) {
  const uint32_t cell = thread_index() / LANES, lane = threadIdx.x % LANES;
  const bool inside = cell < static_cast<uint32_t>(cells);
  const uint32_t row = (inside ? cell : 0u) * static_cast<uint32_t>(values);
  const float objectness = probability(value_at(output, row + 4));
  float lowest = infinity();
  for (uint32_t i = lane; i < static_cast<uint32_t>(published); i += LANES) {
    lowest = min(lowest, frame->thresholds[i]);
  }
  for (int step = LANES / 2; step > 0; step >>= 1) {
    lowest = min(lowest, __shfl_xor_sync(ALL_LANES, lowest, step));
  }
  if (inside && lane == 0 && !finite(objectness)) atomicOr(flags, NAN_SCORE);
  // no class score exceeds 1: most cells are settled by their objectness
  const bool possible = inside && objectness >= lowest;

  float best = -infinity();
  uint32_t slot = 0xffffffffu, broken = 0u;
  if (possible) {
    for (uint32_t i = lane; i < static_cast<uint32_t>(labels); i += LANES) {
      const float value = value_at(output, row + (__ldg(columns + i) & 0xffffu));
      broken |= not_a_number(value);
      if (value > best || slot == 0xffffffffu) {
        best = value;
        slot = i;
      }
    }
  }
  for (int step = LANES / 2; step > 0; step >>= 1) {  // equal values: the first label
    const float other = __shfl_xor_sync(ALL_LANES, best, step);
    const uint32_t other_slot = __shfl_xor_sync(ALL_LANES, slot, step);
    broken |= __shfl_xor_sync(ALL_LANES, broken, step);
    if (other > best || (other == best && other_slot < slot)) {
      best = other;
      slot = other_slot;
    }
  }
  if (!possible || lane != 0) return;
  const uint32_t label = __ldg(columns + slot) >> 16;
  const float score = __fmul_rn(objectness, probability(best)) + 0.0f;  // -0 is 0
  if (broken || !finite(score)) {
    atomicOr(flags, BAD_BOX);
    return;
  }
  if (score < frame->thresholds[label]) return;
  keys[atomicAdd(count, 1u)] =
      static_cast<uint64_t>(ordered(score)) << 32 |
      static_cast<uint64_t>(0x1ffffffu - cell) << 7 | label;
}

__device__ __forceinline__ float bounded(float x) { return min(max(x, -FAR), FAR); }

// Whether any of a range is within 0..limit; in float64 no edge is rounded.
__device__ __forceinline__ bool meets(float centre, float size, float limit) {
  const double half = 0.5 * static_cast<double>(size), middle = static_cast<double>(centre);
  return size > 0.0f && middle + half > 0.0 && middle - half < static_cast<double>(limit);
}

// One thread for each of the best keys: its box (x, y, 0, width, height, 0, 0, score) in pixels of
// the image, where the letterbox has its corner at (left, top) and its pixels the size
// (x_factor, y_factor). A box that shows nothing of the image of width x height pixels has a
// negative score: it suppresses others, and is not put out.
//
// levels: of every stride its first cell, its columns of cells, and the stride.
KERNEL boxes(const void* output, const int* levels, const uint64_t* best, const uint32_t* found,
             float4* rows, uint32_t* flags, int level_count, int values, float left, float top,
             float x_factor, float y_factor, float width, float height) {
  const uint32_t index = thread_index();
  if (index >= *found) return;
  const uint64_t key = best[index];
  const float score = from_ordered(static_cast<uint32_t>(key >> 32));
  const int cell = static_cast<int>(0x1ffffffu - (static_cast<uint32_t>(key) >> 7));
  int level = level_count - 1;
  while (level > 0 && cell < __ldg(levels + 3 * level)) --level;
  const int place = cell - __ldg(levels + 3 * level), columns = __ldg(levels + 3 * level + 1);
  const float stride = static_cast<float>(__ldg(levels + 3 * level + 2));

  const uint32_t row = static_cast<uint32_t>(cell) * static_cast<uint32_t>(values);
  const float dx = value_at(output, row), dy = value_at(output, row + 1);
  const float wide = value_at(output, row + 2), high = value_at(output, row + 3);
  const float x = (bounded(dx) + static_cast<float>(place % columns)) * stride;
  const float y = (bounded(dy) + static_cast<float>(place / columns)) * stride;
  const bool sound = finite(dx) && finite(dy) && !not_a_number(wide) && !not_a_number(high) &&
                     wide < LONGEST && high < LONGEST;
  if (!sound) atomicOr(flags, BAD_BOX);
  const float image_x = (x - left) * x_factor, image_y = (y - top) * y_factor;
  const float across = bounded(expf(wide) * stride) * x_factor;
  const float down = bounded(expf(high) * stride) * y_factor;
  const bool visible = meets(image_x, across, width) && meets(image_y, down, height);
  rows[2 * index] = make_float4(image_x, image_y, 0.0f, across);
  rows[2 * index + 1] = make_float4(down, 0.0f, 0.0f, visible ? score : -score);
}
