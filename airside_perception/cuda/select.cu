// The best candidates, sorted. A key is ordered(score) << 32 | (2^25 - 1 - place) << 7 | label: the
// larger the better, equal scores by place. No two keys are equal, so that the rank of a key, the
// number of larger ones, is its place among the best: the order of the keys given does not matter.
#include "common.cuh"
#include "frame.cuh"

constexpr uint32_t FEW = 4096;     // keys that are ranked as they are
constexpr uint32_t POOL = 10240;   // keys that `narrow` leaves at most
constexpr uint32_t DIGIT = 11;     // bits by which `narrow` sorts out
constexpr uint32_t BINS = 1u << DIGIT;
constexpr uint32_t WARPS = 32;     // of `narrow`
constexpr uint32_t TILE = 2048;    // keys that `rank` looks at together
constexpr uint32_t QUERIES = 2;    // keys that a warp of `rank` ranks together
constexpr uint32_t RANK_WARPS = 8;
constexpr uint32_t PARTS = TILE / (32 * RANK_WARPS);

// Each key, by all threads of the block; eight are on their way at a time. Whole warps stay together:
// some keys are not valid.
template <typename Action>
__device__ __forceinline__ void for_each_key(const uint64_t* __restrict__ keys, uint32_t total,
                                             Action action) {
  for (uint32_t start = 0; start < total; start += 8u * blockDim.x) {
    uint64_t part[8];
#pragma unroll
    for (uint32_t k = 0; k < 8; ++k) {
      part[k] = keys[min(start + k * blockDim.x + threadIdx.x, total - 1u)];
    }
#pragma unroll
    for (uint32_t k = 0; k < 8; ++k) {
      if (start + k * blockDim.x >= total) break;
      action(part[k], start + k * blockDim.x + threadIdx.x < total);
    }
  }
}

// One block of 1,024 threads. Says how many are chosen; where there are more than FEW keys, collects
// a superset of the best: those of the leading digits that the last of the best has, and larger.
KERNEL __launch_bounds__(1024)
narrow(const uint64_t* __restrict__ keys, const uint32_t* count, const Frame* frame,
       uint32_t capacity, uint64_t* pool, uint32_t* pooled, uint32_t* chosen, uint32_t* pairs) {
  __shared__ uint32_t bins[BINS];
  __shared__ uint32_t totals[WARPS];
  __shared__ uint32_t found_bin, found_above, taken;
  const uint32_t total = *count, thread = threadIdx.x;
  const uint32_t most = static_cast<uint32_t>(max(frame->most, 0));
  const uint32_t n = min(min(total, most), min(capacity, POOL));
  if (thread == 0) {
    *chosen = n;
    *pooled = 0;
    *pairs = 0;
    taken = 0;
  }
  if (total <= FEW || n == 0) return;

  const uint32_t enough = n <= FEW ? FEW : POOL;
  uint64_t lead = 0;     // leading digits of the n-th best key
  uint32_t above = 0;    // keys whose leading digits are larger
  uint32_t known = 0;    // leading bits that are in `lead`
  for (;;) {
    const uint32_t width = min(DIGIT, 64u - known), shift = 64u - known - width;
    for (uint32_t bin = thread; bin < BINS; bin += blockDim.x) bins[bin] = 0;
    __syncthreads();
    for_each_key(keys, total, [&](uint64_t key, bool valid) {
      const bool counts = valid && (known == 0 || key >> (64u - known) == lead);
      const uint32_t bin = static_cast<uint32_t>(key >> shift) & ((1u << width) - 1u);
      const bool alike = bin == __shfl_sync(ALL_LANES, bin, 0);
      if (__all_sync(ALL_LANES, counts && alike)) {  // scores are alike in their first digits
        if (lane_index() == 0) atomicAdd(&bins[bin], 32u);
      } else if (counts) {
        atomicAdd(&bins[bin], 1u);
      }
    });
    __syncthreads();
    // the n-th best lies in the first bin, from the largest, up to which there are n keys
    const uint32_t high = BINS - 1u - 2u * thread;
    const uint32_t own = bins[high] + bins[high - 1];
    const uint32_t running = warp_running_sum(own);
    if (lane_index() == 31u) totals[thread >> 5] = running;
    __syncthreads();
    uint32_t before = above + running - own;
    for (uint32_t warp = 0; warp < thread >> 5; ++warp) before += totals[warp];
    if (before < n && before + own >= n) {  // of one thread only
      const bool first = before + bins[high] >= n;
      found_bin = first ? high : high - 1;
      found_above = first ? before : before + bins[high];
    }
    __syncthreads();
    lead = lead << width | found_bin;
    above = found_above;
    known += width;
    if (above + bins[found_bin] <= enough || known == 64u) break;
    __syncthreads();  // bins and found_bin are read
  }
  for_each_key(keys, total, [&](uint64_t key, bool valid) {
    if (!valid || key >> (64u - known) < lead) return;
    const uint32_t slot = atomicAdd(&taken, 1u);
    if (slot < POOL) pool[slot] = key;
  });
  __syncthreads();
  if (thread == 0) *pooled = min(taken, POOL);
}

// Blocks of 256 threads, any number: puts every key that is among the best to its place.
KERNEL __launch_bounds__(256, 4)
rank(const uint64_t* __restrict__ keys, const uint32_t* count, const uint64_t* __restrict__ pool,
     const uint32_t* pooled, const uint32_t* chosen, uint64_t* best) {
  __shared__ uint64_t tile[TILE];
  const uint32_t given = *count, narrowed = *pooled, n = *chosen;
  const uint64_t* source = given <= FEW ? keys : pool;
  const uint32_t total = given <= FEW ? given : narrowed;
  const uint32_t lane = lane_index(), warp = threadIdx.x >> 5, group = RANK_WARPS * QUERIES;
  for (uint32_t first = blockIdx.x * group; first < total; first += gridDim.x * group) {
    uint64_t own[QUERIES];
    uint32_t larger[QUERIES];
    for (uint32_t k = 0; k < QUERIES; ++k) {
      const uint32_t i = first + warp * QUERIES + k;
      own[k] = i < total ? source[i] : ~0ull;
      larger[k] = i < total ? 0 : n;
    }
    for (uint32_t start = 0; start < total; start += TILE) {
      const uint32_t size = min(TILE, total - start);
      uint64_t part[PARTS];  // loaded together
#pragma unroll
      for (uint32_t k = 0; k < PARTS; ++k) {
        part[k] = source[min(start + threadIdx.x + 32u * RANK_WARPS * k, total - 1u)];
      }
#pragma unroll
      for (uint32_t k = 0; k < PARTS; ++k) tile[threadIdx.x + 32u * RANK_WARPS * k] = part[k];
      __syncthreads();
#pragma unroll 4
      for (uint32_t i = lane; i < size; i += 32u) {
        const uint64_t key = tile[i];
        for (uint32_t k = 0; k < QUERIES; ++k) larger[k] += key > own[k];
      }
      __syncthreads();  // the tile is done with
    }
    for (uint32_t k = 0; k < QUERIES; ++k) {
      const uint32_t place = first + warp * QUERIES + k < total ? warp_sum(larger[k]) : n;
      if (lane == 0 && place < n) best[place] = own[k];
    }
  }
}
