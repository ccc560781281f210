// What every kernel of the package shares: types, half floats as bits, keys that sort like floats,
// reductions over a warp. Compiled by NVRTC without any header of CUDA, and by g++ (EMULATED).
//
// Kernels that must equal NumPy bit for bit use __fmul_rn, __fadd_rn and __fsub_rn: the compiler
// contracts plain a * b + c to one rounding.
#pragma once

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

#define KERNEL extern "C" __global__ void

constexpr uint32_t ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

__device__ __forceinline__ bool finite(float x) {
  return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

__device__ __forceinline__ bool not_a_number(float x) {
  return (__float_as_uint(x) & 0x7fffffffu) > 0x7f800000u;
}

// ---- half precision (IEEE binary16) as its bits -------------------------------------------------

#ifdef EMULATED

__device__ __forceinline__ uint16_t to_half(float x) {
  const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return 0x7fffu;                   // NaN, as cvt.rn.f16.f32 gives it
  if (size >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (size < 0x33000001u) return static_cast<uint16_t>(sign);             // rounds to zero
  const int exponent = static_cast<int>(size >> 23) - 127;
  const uint32_t shift = exponent < -14 ? static_cast<uint32_t>(-1 - exponent) : 13u;
  const uint32_t fraction = (size & 0x7fffffu) | 0x800000u;
  uint32_t half = fraction >> shift;
  const uint32_t rest = fraction & ((1u << shift) - 1u), middle = 1u << (shift - 1u);
  half += rest > middle || (rest == middle && (half & 1u));
  if (exponent >= -14) half += static_cast<uint32_t>(exponent + 14) << 10;
  return static_cast<uint16_t>(sign | half);
}

__device__ __forceinline__ float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
  if (exponent == 31u) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0u) return __uint_as_float(sign | (exponent + 112u) << 23 | fraction << 13);
  const float size = static_cast<float>(fraction) * __uint_as_float(0x33800000u);  // 2^-24
  return __uint_as_float(sign | __float_as_uint(size));
}

#else

__device__ __forceinline__ uint16_t to_half(float x) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
}

__device__ __forceinline__ float from_half(uint16_t half) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
  return x;
}

#endif

// ---- unsigned keys that sort like the floats they come from --------------------------------------

// -0 and 0 are equal, so they have one key: adding 0 makes -0 positive.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float from_ordered(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// ---- threads and warps: blocks are one-dimensional where these are used ---------------------------

__device__ __forceinline__ uint32_t thread_index() {
  return blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ uint32_t thread_count() { return gridDim.x * blockDim.x; }

__device__ __forceinline__ uint32_t lane_index() { return threadIdx.x & 31u; }

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(ALL_LANES, value, step);
  return value;
}

template <typename T>
__device__ __forceinline__ T warp_max(T value) {
  for (int step = 16; step > 0; step >>= 1) {
    value = max(value, __shfl_xor_sync(ALL_LANES, value, step));
  }
  return value;
}

template <typename T>
__device__ __forceinline__ T warp_min(T value) {
  for (int step = 16; step > 0; step >>= 1) {
    value = min(value, __shfl_xor_sync(ALL_LANES, value, step));
  }
  return value;
}

// Sum over the lanes up to and including this one.
template <typename T>
__device__ __forceinline__ T warp_running_sum(T value) {
  for (uint32_t step = 1; step < 32; step <<= 1) {
    const T other = __shfl_up_sync(ALL_LANES, value, step);
    if (lane_index() >= step) value += other;
  }
  return value;
}
