// From the bytes of an image, as a ROS message holds them, to the input of a network: colours,
// letterbox and normalisation in one pass. gpu_image.py says what is launched with which options:
//
//   SOURCE  how the pixels lie: BGR, BGRA, MONO, YUYV, UYVY, NV12 or NV21; rows without padding
//   LAYOUT  of the input: FP32 and FP16 are [3, rows, columns], PADDED is float16
//           [rows, columns, CHANNELS] (4, or a multiple of 8), zero beyond the third channel
//
// Resizing is what OpenCV's INTER_LINEAR does to uint8 (4.5 to 5, on x86-64): weights of 11 bits,
// four of the bits of a row's sum are cut off, each product with a row's weight is cut to 16 bits.
// A shrink by exactly two, where OpenCV averages four pixels, has the weights 1024 and is the same.
// YUV is BT.601, video range, in OpenCV's integers (20 bits). Both are equal to it bit for bit.
#include "common.cuh"

#define BGR 0
#define BGRA 1
#define MONO 2
#define YUYV 3
#define UYVY 4
#define NV12 5
#define NV21 6
#define FP32 0
#define FP16 1
#define PADDED 2

struct Pixel {
  int value[3];
};

// Two neighbours of a row. The right one of the last column is any value: its weight is zero.
struct Pair {
  Pixel left, right;
};

__device__ __forceinline__ uint32_t word(const uint8_t* bytes, uint32_t index) {
  return __ldg(reinterpret_cast<const uint32_t*>(bytes) + index);
}

__device__ __forceinline__ int byte_of(uint32_t bytes, int index) {
  return static_cast<int>(bytes >> 8 * index & 255u);
}

__device__ __forceinline__ int to_byte(int x) { return min(max(x >> 20, 0), 255); }

__device__ __forceinline__ Pixel from_yuv(int y, int u, int v) {
  const int light = max(y - 16, 0) * 1220542 + (1 << 19);
  u -= 128;
  v -= 128;
  return {{to_byte(light + 2116026 * u), to_byte(light - 409993 * u - 852492 * v),
           to_byte(light + 1673527 * v)}};
}

// Pixels (row, column) and (row, column + 1) as blue, green, red, or as their bytes lie. Reads whole words:
// up to 11 bytes behind the image, which the caller's buffer has.
__device__ __forceinline__ Pair pair_at(const uint8_t* image, int width, int height, int row,
                                        int column) {
  const uint32_t place = static_cast<uint32_t>(row) * static_cast<uint32_t>(width) +
                         static_cast<uint32_t>(column);
#if SOURCE == BGR
  const uint32_t first = place * 3u, index = first >> 2, shift = (first & 3u) * 8u;
  const uint32_t middle = word(image, index + 1);
  const uint32_t low = __funnelshift_r(word(image, index), middle, shift);
  const uint32_t high = __funnelshift_r(middle, word(image, index + 2), shift);
  return {{{byte_of(low, 0), byte_of(low, 1), byte_of(low, 2)}},
          {{byte_of(low, 3), byte_of(high, 0), byte_of(high, 1)}}};
#elif SOURCE == BGRA
  const uint32_t left = word(image, place), right = word(image, place + 1);
  return {{{byte_of(left, 0), byte_of(left, 1), byte_of(left, 2)}},
          {{byte_of(right, 0), byte_of(right, 1), byte_of(right, 2)}}};
#elif SOURCE == MONO
  const int left = __ldg(image + place), right = __ldg(image + place + 1);
  return {{{left, left, left}}, {{right, right, right}}};
#elif SOURCE == YUYV || SOURCE == UYVY
  const uint32_t index = place >> 1;  // the width is even: two pixels of a word are of one row
  const bool odd = place & 1u;
  const uint32_t left = word(image, index), right = odd ? word(image, index + 1) : left;
  const int light = SOURCE == YUYV ? 0 : 1, colour = 1 - light;
  return {from_yuv(byte_of(left, light + (odd ? 2 : 0)), byte_of(left, colour),
                   byte_of(left, colour + 2)),
          from_yuv(byte_of(right, light + (odd ? 0 : 2)), byte_of(right, colour),
                   byte_of(right, colour + 2))};
#else
  const uint32_t line = static_cast<uint32_t>(height + (row >> 1)) * static_cast<uint32_t>(width);
  const uint16_t* colours = reinterpret_cast<const uint16_t*>(image + line);  // the width is even
  const uint32_t left = __ldg(colours + (column >> 1));
  const uint32_t right = __ldg(colours + ((column + 1) >> 1));
  const int u = SOURCE == NV12 ? 0 : 1, v = 1 - u;
  return {from_yuv(__ldg(image + place), byte_of(left, u), byte_of(left, v)),
          from_yuv(__ldg(image + place + 1), byte_of(right, u), byte_of(right, v))};
#endif
}

// Where the two sources of a target lie and how much they weigh: first << 1 | (second - first),
// then both weights of 2048ths, the second in the upper half.
struct Taps {
  int first, second, weight_first, weight_second;
};

__device__ __forceinline__ Taps taps_at(const uint64_t* table, int index) {
  const uint64_t entry = __ldg(table + index);
  const int first = static_cast<int>(entry >> 1 & 0x7fffffffu);
  return {first, first + static_cast<int>(entry & 1u), static_cast<int>(entry >> 32 & 0xffffu),
          static_cast<int>(entry >> 48)};
}

__device__ __forceinline__ Pixel resized(const uint8_t* image, int width, int height,
                                         const Taps& across, const Taps& down) {
  const Pair upper = pair_at(image, width, height, down.first, across.first);
  const Pair lower = pair_at(image, width, height, down.second, across.first);
  Pixel pixel;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const int top = upper.left.value[i] * across.weight_first +
                    upper.right.value[i] * across.weight_second;
    const int bottom = lower.left.value[i] * across.weight_first +
                       lower.right.value[i] * across.weight_second;
    pixel.value[i] = ((down.weight_first * (top >> 4) >> 16) +
                      (down.weight_second * (bottom >> 4) >> 16) + 2) >> 2;
  }
  return pixel;
}

struct Colour {
  float value[3];
};

#if LAYOUT == FP32
constexpr int PIXELS = 4;

__device__ __forceinline__ void put(void* input, int plane, int place, const Colour& colour) {
  float* target = static_cast<float*>(input) + place;
  for (int i = 0; i < 3; ++i) target[i * plane] = colour.value[i];
}

__device__ __forceinline__ void put_all(void* input, int plane, int place, const Colour* colours) {
  for (int i = 0; i < 3; ++i) {
    *reinterpret_cast<float4*>(static_cast<float*>(input) + place + i * plane) =
        make_float4(colours[0].value[i], colours[1].value[i], colours[2].value[i],
                    colours[3].value[i]);
  }
}
#elif LAYOUT == FP16
constexpr int PIXELS = 4;

__device__ __forceinline__ void put(void* input, int plane, int place, const Colour& colour) {
  uint16_t* target = static_cast<uint16_t*>(input) + place;
  for (int i = 0; i < 3; ++i) target[i * plane] = to_half(colour.value[i]);
}

__device__ __forceinline__ uint32_t two_halves(float low, float high) {
  return to_half(low) | static_cast<uint32_t>(to_half(high)) << 16;
}

__device__ __forceinline__ void put_all(void* input, int plane, int place, const Colour* colours) {
  for (int i = 0; i < 3; ++i) {
    *reinterpret_cast<uint2*>(static_cast<uint16_t*>(input) + place + i * plane) =
        make_uint2(two_halves(colours[0].value[i], colours[1].value[i]),
                   two_halves(colours[2].value[i], colours[3].value[i]));
  }
}
#else
constexpr int PIXELS = 1;  // a pixel is 16 bytes, say, so a warp writes 512 neighbouring ones

__device__ __forceinline__ void put(void* input, int, int place, const Colour& colour) {
  const uint32_t low = to_half(colour.value[0]) |
                       static_cast<uint32_t>(to_half(colour.value[1])) << 16;
  const uint32_t high = to_half(colour.value[2]);
#if CHANNELS == 4
  static_cast<uint2*>(input)[place] = make_uint2(low, high);
#else
  uint4* target = static_cast<uint4*>(input) + place * (CHANNELS / 8);
  target[0] = make_uint4(low, high, 0u, 0u);
  for (int i = 1; i < CHANNELS / 8; ++i) target[i] = make_uint4(0u, 0u, 0u, 0u);
#endif
}

__device__ __forceinline__ void put_all(void* input, int plane, int place, const Colour* colours) {
  put(input, plane, place, colours[0]);
}
#endif

// One thread for PIXELS neighbouring columns of the input, counted from a multiple of PIXELS at
// or before `left`; columns and rows: of the input; groups: threads a row. `swap` turns the order of
// the colours around. `values` are three factors and three offsets, in the order of the network's
// channels.
KERNEL letterbox(const uint8_t* image, const uint64_t* across, const uint64_t* down,
                 const float* values, void* input, int width, int height, int inner_width,
                 int inner_height, int left, int top, int columns, int rows, int groups, int swap) {
  const int index = static_cast<int>(thread_index());
  const int y = index / groups, group = index - y * groups;
  if (y >= inner_height) return;
  const int start = left / PIXELS * PIXELS + group * PIXELS - left;  // in the inner image
  const Taps vertical = taps_at(down, y);
  Taps horizontal[PIXELS];
#pragma unroll
  for (int i = 0; i < PIXELS; ++i) {  // clamped, not skipped: without branches loads overlap
    horizontal[i] = taps_at(across, min(max(start + i, 0), inner_width - 1));
  }
  Colour colours[PIXELS];
#pragma unroll
  for (int i = 0; i < PIXELS; ++i) {
    const Pixel pixel = resized(image, width, height, horizontal[i], vertical);
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
      const int value = swap ? pixel.value[2 - channel] : pixel.value[channel];
      colours[i].value[channel] = __fadd_rn(
          __fmul_rn(static_cast<float>(value), __ldg(values + channel)),
          __ldg(values + 3 + channel));
    }
  }
  const int plane = rows * columns, place = (top + y) * columns + left + start;
  const bool aligned = columns % PIXELS == 0;
  if (aligned && start >= 0 && start + PIXELS <= inner_width) {
    put_all(input, plane, place, colours);
  } else {
    for (int i = 0; i < PIXELS; ++i) {
      if (start + i >= 0 && start + i < inner_width) put(input, plane, place + i, colours[i]);
    }
  }
}

// The whole input as border: `values` are its three channels.
KERNEL border(void* input, const float* values, int columns, int rows) {
  const int place = static_cast<int>(thread_index()), plane = rows * columns;
  if (place >= plane) return;
  put(input, plane, place, {{__ldg(values), __ldg(values + 1), __ldg(values + 2)}});
}
