// Kernels that try what the emulator offers; compared with NumPy in test_emulator.py.
#include "common.cuh"

constexpr int BLOCK = 128;

// Each block sums its values over warps and shared memory; threads beyond `n` leave early.
KERNEL sum_blocks(const float* __restrict__ values, int n, float* __restrict__ sums) {
  __shared__ float partial[BLOCK / 32];
  const uint32_t i = thread_index();
  const float sum = warp_sum(i < n ? values[i] : 0.0f);
  if (lane_index() == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  float total = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
  total = warp_sum(total);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// Every block in reverse, through dynamic shared memory.
extern "C" __global__ void __launch_bounds__(BLOCK) reverse_blocks(int* values) {
  extern __shared__ int tile[];
  tile[threadIdx.x] = values[thread_index()];
  __syncthreads();
  values[thread_index()] = tile[blockDim.x - 1 - threadIdx.x];
}

// Appends indices of odd values: one atomic a warp, places by ballot. Order depends on the seed.
KERNEL append_odd(const uint32_t* values, uint32_t n, uint32_t* list, uint32_t* count) {
  const uint32_t i = thread_index();
  if (i >= n) return;
  const uint32_t lanes = n - (i - lane_index()) >= 32 ? ALL_LANES : (1u << (n & 31u)) - 1u;
  const bool odd = values[i] & 1u;
  const uint32_t votes = __ballot_sync(lanes, odd);
  uint32_t base = 0;
  if (lane_index() == 0) base = atomicAdd(count, static_cast<uint32_t>(__popc(votes)));
  base = __shfl_sync(lanes, base, 0);
  if (odd) list[base + __popc(votes & ((1u << lane_index()) - 1u))] = i;
}

KERNEL running_sums(const int* values, int* sums) {
  sums[thread_index()] = warp_running_sum(values[thread_index()]);
}

KERNEL histogram(const uint32_t* values, uint32_t n, unsigned long long* bins, float* weight) {
  __shared__ uint32_t local[16];
  if (threadIdx.x < 16) local[threadIdx.x] = 0;
  __syncthreads();
  for (uint32_t i = thread_index(); i < n; i += thread_count()) atomicAdd(&local[values[i] & 15], 1);
  __syncthreads();
  if (threadIdx.x < 16) {
    atomicAdd(&bins[threadIdx.x], static_cast<unsigned long long>(local[threadIdx.x]));
    atomicAdd(weight, static_cast<float>(local[threadIdx.x]));
  }
}

KERNEL halves(const float* values, int n, uint16_t* bits, float* back, uint32_t* keys) {
  const uint32_t i = thread_index();
  if (i >= n) return;
  bits[i] = to_half(values[i]);
  back[i] = from_half(bits[i]);
  keys[i] = ordered(values[i]);
  if (from_ordered(keys[i]) != values[i]) keys[i] = 0;
}

// The two differ by one rounding where the compiler contracts.
KERNEL products(const float* a, const float* b, const float* c, float* plain, float* rounded) {
  const uint32_t i = thread_index();
  plain[i] = a[i] * b[i] + c[i];
  rounded[i] = __fadd_rn(__fmul_rn(a[i], b[i]), c[i]);
}

KERNEL coordinates(uint32_t* out) {
  const uint32_t x = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t y = blockIdx.y * blockDim.y + threadIdx.y;
  out[y * gridDim.x * blockDim.x + x] = y << 16 | x;
}

// The last block to come adds up what all blocks counted.
KERNEL last_block(uint32_t* counts, uint32_t* ticket, uint32_t* total) {
  if (threadIdx.x == 0) {
    counts[blockIdx.x] = blockIdx.x;
    __threadfence();
    if (atomicAdd(ticket, 1u) == gridDim.x - 1) {
      for (uint32_t i = 0; i < gridDim.x; ++i) *total += counts[i];
    }
  }
}

// ---- what the emulator must refuse -----------------------------------------------------------------

KERNEL deadlock(int* out) {
  if (threadIdx.x < 16) __syncwarp(0xffffffffu);
  else __syncthreads();
  out[0] = 1;
}

KERNEL different_operations(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __any_sync(ALL_LANES, 1);
  else out[threadIdx.x] = __all_sync(ALL_LANES, 1);
}

KERNEL not_in_mask(int* out) { out[threadIdx.x] = __shfl_sync(1u, 1, 0); }

KERNEL without_barrier(const int* values, int* out) {
  __shared__ int tile[BLOCK];
  tile[threadIdx.x] = values[threadIdx.x];
  out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

KERNEL misaligned(const unsigned char* bytes, float* out) {
  out[0] = *reinterpret_cast<const float*>(bytes + 1);
}

KERNEL beyond(float* out, int n) { out[n] = 1.0f; }

KERNEL cast(const float* value, int* out) { out[0] = static_cast<int>(value[0]); }

KERNEL converted(const float* values, int* out, int64_t* wide) {
  out[threadIdx.x] = __float2int_rd(values[threadIdx.x]);
  wide[threadIdx.x] = __double2ll_rn(static_cast<double>(values[threadIdx.x]) * 4294967296.0);
}
