// From points to the canvas of a dense network: lidar/pillars.py and lidar/encoder.py on the GPU.
//
// Nothing depends on the order in which threads run: slots within a cell come from atomics, but
// the features of a pillar are a maximum and its mean an integer sum over the same set of points.
// Nothing is proportional to the grid but one pass over the counts of the cells (L2 cache).
//
// Compiled for: CHANNELS; MAX_POINTS kept in a pillar; FOURTH (0 or 1: whether the fourth value of a
// point is used, its intensity or the age of its sweep); HALF and HWC8 (0 or 1: the canvas).
//
//   bin_points      cell and slot of every point, counts of the cells
//   number_pillars  from counts to pillars ascending by cell and to the places of their points
//   sort_points     points to these places
//   draw_pillars    features onto the canvas; counts back to zero
//   clear_pillars   the canvas back to zero, before the next cloud
#include "common.cuh"
#include "frame.cuh"

constexpr int WARP = 32;
constexpr int SCAN_THREADS = 1024;  // number_pillars: as many warps as a warp has lanes
constexpr int DRAW_WARPS = 8;
constexpr uint32_t NOWHERE = 0xffffffffu;  // place of a cell whose pillar is left out
constexpr int STORED = HWC8 ? (CHANNELS + 7) / 8 * 8 : (CHANNELS + 1) / 2 * 2;
constexpr int PAIRS = STORED / 2;
constexpr int PAIRS_A_LANE = (PAIRS + WARP - 1) / WARP;
static_assert(HALF || !HWC8, "hwc8 is a layout of half precision");

// Lower corner of the grid, upper z, reciprocal extents of a pillar, size.
struct Grid {
  float x0, y0, z0, z1, sx, sy;
  int32_t rows, columns;
};

// Cell of a point and its slot there; cell -1: out of range.
struct __align__(8) Bin {
  int32_t cell, slot;
};

// An occupied cell: `count` points from `begin` on, kept or not; `start` counts the points that
// the pillars before keep.
struct __align__(16) Pillar {
  int32_t cell, begin, count, start;
};

struct Totals {
  int32_t pillars;   // that are drawn
  int32_t occupied;  // also those that are too many
  int32_t in_range;  // points in the grid
  int32_t kept;      // points in the pillars that are drawn
};

// A point in the frame of the network, rounded as geometry.move_cloud rounds.
__device__ __forceinline__ float4 moved(const Frame* frame, float4 p) {
  if (!frame->moved) return p;
  const float4* rows = reinterpret_cast<const float4*>(frame->motion);
  float at[3];
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const float4 m = rows[axis];
    const float xy = __fadd_rn(__fmul_rn(p.x, m.x), __fmul_rn(p.y, m.y));
    at[axis] = __fadd_rn(__fadd_rn(xy, __fmul_rn(p.z, m.z)), m.w);
  }
  return {at[0], at[1], at[2], p.w};
}

// Whether a point in the frame of the network is one of the vehicle's own body (lidar/ego.py).
__device__ __forceinline__ bool on_ego(const Frame* frame, float4 p) {
  const float* low = frame->ego_low;
  const float* high = frame->ego_high;
  return p.x >= low[0] && p.x < high[0] && p.y >= low[1] && p.y < high[1] && p.z >= low[2] &&
         p.z < high[2];
}

// Rules 1 and 2 of lidar/pillars.py, a thread a point. `state`, with which number_pillars works,
// goes back to zero here.
KERNEL bin_points(const Frame* __restrict__ frame, const float4* __restrict__ points,
                  int32_t capacity, const Grid* __restrict__ grid, uint32_t* counts, Bin* bins,
                  uint64_t* state, int32_t words) {
  const int32_t i = static_cast<int32_t>(thread_index());
  if (i < words) state[i] = 0;
  const uint32_t lane = lane_index();
  const int32_t n = min(frame->points, capacity);
  if (i - static_cast<int32_t>(lane) >= n) return;  // the whole warp
  int32_t cell = -1;
  if (i < n) {
    const float4 p = moved(frame, points[i]);
    const Grid g = *grid;
    const float column = __fmul_rn(__fsub_rn(p.x, g.x0), g.sx);
    const float row = __fmul_rn(__fsub_rn(p.y, g.y0), g.sy);
    const float range2 = __fadd_rn(__fmul_rn(p.x, p.x), __fmul_rn(p.y, p.y));
    if (!(range2 < frame->min_range2) && !on_ego(frame, p) && p.z >= g.z0 && p.z < g.z1 &&
        column >= 0.0f && column < static_cast<float>(g.columns) && row >= 0.0f &&
        row < static_cast<float>(g.rows)) {
      cell = static_cast<int32_t>(row) * g.columns + static_cast<int32_t>(column);
    }
  }
  // neighbours in the cloud often share a cell: one atomic for all of a run
  const int32_t before = __shfl_up_sync(ALL_LANES, cell, 1);
  const uint32_t firsts = __ballot_sync(ALL_LANES, lane == 0 || cell != before);
  const uint32_t up_to_here = ALL_LANES >> (WARP - 1 - lane), later = firsts & ~up_to_here;
  const uint32_t leader = WARP - 1 - __clz(firsts & up_to_here);
  int32_t slot = 0;
  if (cell >= 0 && lane == leader) {
    const uint32_t end = later ? __ffs(later) - 1 : WARP;
    slot = static_cast<int32_t>(atomicAdd(&counts[cell], end - lane));
  }
  slot = __shfl_sync(ALL_LANES, slot, leader) + static_cast<int32_t>(lane - leader);
  if (i < n) bins[i] = {cell, slot};
}

// Three running sums in one word, which is read and written at once: occupied cells, their points,
// and how many of these are kept, 20 bits each. The two upper bits say what a tile of cells has
// put down: nothing yet, its own sums, or those of all tiles up to it.
constexpr uint64_t FIELD = 0xfffff, SUMS = (1ull << 60) - 1ull;
constexpr uint64_t OWN = 1ull << 62, UP_TO_HERE = 2ull << 62;

__device__ __forceinline__ uint64_t sums_of(uint32_t count) {
  if (count == 0) return 0;
  const uint64_t kept = min(count, static_cast<uint32_t>(MAX_POINTS));
  return 1ull | static_cast<uint64_t>(count) << 20 | kept << 40;
}

// Sums of all tiles before `tile`, by one warp that looks back as far as it must (Merrill and
// Garland, Single-pass Parallel Prefix Scan with Decoupled Look-back, 2016). It waits only for
// tiles that are at work already: they are numbered in the order of their start.
__device__ __forceinline__ uint64_t sums_before(int32_t tile, const volatile uint64_t* words) {
  const int32_t lane = static_cast<int32_t>(lane_index());
  uint64_t before = 0;
  for (int32_t nearest = tile - 1; nearest >= 0; nearest -= WARP) {
    uint64_t word = UP_TO_HERE;  // nothing lies before the first tile
    if (lane <= nearest) {
      do {
        word = words[nearest - lane];
      } while (word >> 62 == 0);
    }
    const uint32_t complete = __ballot_sync(ALL_LANES, static_cast<int>(word >> 63));
    const int32_t stop = complete ? __ffs(complete) - 1 : WARP - 1;
    before += warp_sum<uint64_t>(lane <= stop ? word & SUMS : 0);
    if (complete) break;
  }
  return before;
}

// Rules 3 to 5: a thread four cells, a block a tile. `counts` becomes the place of the cell's first
// point, or NOWHERE. `state`: how many tiles have begun, then a word of sums for each.
KERNEL __launch_bounds__(SCAN_THREADS)
    number_pillars(uint4* counts, int32_t quads, int32_t max_pillars, uint64_t* state,
                   Pillar* pillars, Totals* totals) {
  __shared__ uint64_t before_warp[SCAN_THREADS / WARP];
  __shared__ uint64_t before_tile;
  __shared__ int32_t own_tile;
  if (threadIdx.x == 0) own_tile = static_cast<int32_t>(atomicAdd(&state[0], uint64_t{1}));
  __syncthreads();
  const int32_t tile = own_tile;
  const uint32_t lane = lane_index(), warp = threadIdx.x / WARP;
  const int32_t quad = tile * SCAN_THREADS + static_cast<int32_t>(threadIdx.x);
  const uint4 four = quad < quads ? counts[quad] : uint4{0, 0, 0, 0};
  uint32_t count[4] = {four.x, four.y, four.z, four.w};
  const uint64_t own =
      sums_of(count[0]) + sums_of(count[1]) + sums_of(count[2]) + sums_of(count[3]);
  const uint64_t up_to = warp_running_sum(own);
  if (lane == WARP - 1) before_warp[warp] = up_to;
  __syncthreads();
  if (warp == 0) {
    volatile uint64_t* words = state + 1;
    const uint64_t of_warp = before_warp[lane];
    const uint64_t up_to_warp = warp_running_sum(of_warp);
    const uint64_t of_tile = __shfl_sync(ALL_LANES, up_to_warp, WARP - 1);
    if (lane == 0 && tile > 0) words[tile] = OWN | of_tile;
    const uint64_t before = sums_before(tile, words);
    const uint64_t all = before + of_tile;
    before_warp[lane] = up_to_warp - of_warp;
    if (lane == 0) {
      words[tile] = UP_TO_HERE | all;
      before_tile = before;
      if (tile == static_cast<int32_t>(gridDim.x) - 1) {
        const int32_t occupied = static_cast<int32_t>(all & FIELD);
        totals->pillars = min(occupied, max_pillars);
        totals->occupied = occupied;
        totals->in_range = static_cast<int32_t>(all >> 20 & FIELD);
        if (occupied <= max_pillars) totals->kept = static_cast<int32_t>(all >> 40 & FIELD);
      }
    }
  }
  __syncthreads();
  if (own == 0) return;
  uint64_t before = before_tile + before_warp[warp] + up_to - own;
  for (int k = 0; k < 4; ++k) {
    if (count[k] == 0) continue;
    const int32_t rank = static_cast<int32_t>(before & FIELD);
    const int32_t begin = static_cast<int32_t>(before >> 20 & FIELD);
    const int32_t start = static_cast<int32_t>(before >> 40 & FIELD);
    before += sums_of(count[k]);
    pillars[rank] = {4 * quad + k, begin, static_cast<int32_t>(count[k]), start};
    if (rank == max_pillars) totals->kept = start;
    count[k] = rank < max_pillars ? static_cast<uint32_t>(begin) : NOWHERE;
  }
  counts[quad] = {count[0], count[1], count[2], count[3]};
}

// A thread a point: the point, moved, and its index go to their place.
KERNEL sort_points(const Frame* __restrict__ frame, const float4* __restrict__ points,
                   int32_t capacity, const uint32_t* __restrict__ places,
                   const Bin* __restrict__ bins, float4* sorted, int32_t* members) {
  const int32_t i = static_cast<int32_t>(thread_index());
  if (i >= min(frame->points, capacity)) return;
  const Bin bin = bins[i];
  if (bin.cell < 0) return;
  const uint32_t begin = places[bin.cell];
  if (begin == NOWHERE) return;
  const uint32_t place = begin + static_cast<uint32_t>(bin.slot);
  sorted[place] = moved(frame, points[i]);
  members[place] = i;
}

// A warp that chooses the MAX_POINTS lowest of many indices holds the places of those that may be
// among them in a pool: a batch of indices, read at once, has room behind those kept so far.
constexpr int BATCH = 8, POOL = MAX_POINTS + BATCH * WARP;

// Only the places of the MAX_POINTS lowest indices stay in the pool, of `size` > MAX_POINTS. The
// largest of these indices comes back: the largest number below which fewer lie, bit by bit.
__device__ __forceinline__ int32_t narrow(const int32_t* __restrict__ indices, int32_t most,
                                          int32_t* pool, int32_t size) {
  constexpr int ROUNDS = (POOL + WARP - 1) / WARP;
  const int32_t lane = static_cast<int32_t>(lane_index());
  int32_t index[ROUNDS];
  __syncwarp();
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round) {
    const int32_t k = round * WARP + lane;
    index[round] = k < size ? indices[pool[k]] : 0x7fffffff;
  }
  int32_t found = 0;
  for (int32_t bit = 1 << (31 - __clz(most)); bit > 0; bit >>= 1) {
    const int32_t tried = found | bit;
    uint32_t below = 0;
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) below += index[round] < tried;
    if (__reduce_add_sync(ALL_LANES, below) < MAX_POINTS) found = tried;
  }
  int32_t kept = 0;
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round) {
    const bool keep = index[round] <= found;
    const uint32_t keeping = __ballot_sync(ALL_LANES, keep);
    const int32_t place = keep ? pool[round * WARP + lane] : 0;
    __syncwarp();  // all have read what is overwritten
    if (keep) pool[kept + __popc(keeping & ((1u << lane) - 1u))] = place;
    kept += __popc(keeping);
  }
  return found;
}

// The places of the MAX_POINTS lowest of n > MAX_POINTS different indices up to `most`, in any
// order, in pool [POOL], by one warp that reads each index once.
__device__ __forceinline__ void choose(const int32_t* __restrict__ indices, int32_t n,
                                       int32_t most, int32_t* pool) {
  const int32_t lane = static_cast<int32_t>(lane_index());
  int32_t size = 0, limit = 0x7fffffff;  // of MAX_POINTS indices seen so far none is above
  for (int32_t first = lane;; first += BATCH * WARP) {
    const bool all_seen = first - lane >= n;
    int32_t index[BATCH], taken = 0;
#pragma unroll
    for (int k = 0; k < BATCH; ++k) index[k] = indices[min(first + k * WARP, n - 1)];
#pragma unroll
    for (int k = 0; k < BATCH; ++k) {
      if (first + k * WARP >= n) index[k] = 0x7fffffff;
      taken += __popc(__ballot_sync(ALL_LANES, index[k] < limit));
    }
    if (size > MAX_POINTS && (all_seen || size + taken > POOL)) {
      limit = narrow(indices, most, pool, size);
      size = MAX_POINTS;
    }
    if (all_seen) break;
#pragma unroll
    for (int k = 0; k < BATCH; ++k) {
      const bool take = index[k] < limit;
      const uint32_t taking = __ballot_sync(ALL_LANES, take);
      if (take) pool[size + __popc(taking & ((1u << lane) - 1u))] = first + k * WARP;
      size += __popc(taking);
    }
  }
  __syncwarp();
}

// sum / n in metres, rounded to float32 once. Quotient and remainder in single precision carry
// twice its digits; double precision is slow on embedded GPUs.
__device__ __forceinline__ float mean_of(int64_t sum, float n, float unit) {
  const float high = static_cast<float>(sum);
  const float low = static_cast<float>(sum - static_cast<int64_t>(high));
  const float quotient = __fdiv_rn(high, n);
  const float rest = __fadd_rn(__fmaf_rn(-quotient, n, high), low);
  return __fmul_rn(__fadd_rn(quotient, __fdiv_rn(rest, n)), unit);
}

__device__ __forceinline__ void put(void* canvas, int pair, int32_t cell, int32_t cells, float a,
                                    float b) {
#if HWC8
  static_cast<uint32_t*>(canvas)[static_cast<size_t>(cell) * PAIRS + pair] =
      to_half(a) | static_cast<uint32_t>(to_half(b)) << 16;
#else
  const size_t at = static_cast<size_t>(2 * pair) * cells + cell;
#if HALF
  static_cast<uint16_t*>(canvas)[at] = to_half(a);
  if (2 * pair + 1 < CHANNELS) static_cast<uint16_t*>(canvas)[at + cells] = to_half(b);
#else
  static_cast<float*>(canvas)[at] = a;
  if (2 * pair + 1 < CHANNELS) static_cast<float*>(canvas)[at + cells] = b;
#endif
#endif
}

// Rule 4 and lidar/encoder.py: a warp a pillar, a lane a pair of channels (above 64: two pairs).
//
// of_point [STORED]: weights of u, v, w and the fourth value. of_pillar [STORED, 2]: weights of the
// centre, of centre - mean, the bias, and the least value of a pillar that is not full. centres: x
// of the columns, y of the rows, z. scale: integer units a metre, a power of 2 for which no sum
// overflows; what a coordinate has below one unit is cut off. unit: its reciprocal.
// Up to 64 channels four blocks fit a multiprocessor: DRAW_BLOCKS of gpu_pillars.py run at once.
KERNEL __launch_bounds__(DRAW_WARPS * WARP, CHANNELS <= 64 ? 4 : 2)
    draw_pillars(const Frame* __restrict__ frame, const Totals* __restrict__ totals,
                 const Pillar* __restrict__ pillars, const float4* __restrict__ sorted,
                 const int32_t* __restrict__ members, const float4* __restrict__ of_point,
                 const float4* __restrict__ of_pillar, const float* __restrict__ centres,
                 const Grid* __restrict__ grid, float scale, float unit, uint32_t* counts,
                 float4* means, void* canvas) {
  __shared__ float4 points[DRAW_WARPS][MAX_POINTS];
  __shared__ int32_t pools[DRAW_WARPS][POOL];
  const int32_t lane = static_cast<int32_t>(lane_index());
  float4* local = points[threadIdx.x / WARP];
  int32_t* chosen = pools[threadIdx.x / WARP];
  const int32_t occupied = totals->occupied, drawn = totals->pillars;
  const int32_t warps = static_cast<int32_t>(thread_count() / WARP);
  int32_t p = static_cast<int32_t>(thread_index() / WARP);
  if (p >= occupied) return;
  Pillar next = pillars[p];
  const int32_t rows = grid->rows, columns = grid->columns;
  const float z = centres[columns + rows];
  float4 weight[PAIRS_A_LANE][2], of_centre[PAIRS_A_LANE][2], of_mean[PAIRS_A_LANE][2];
  for (int j = 0; j < PAIRS_A_LANE; ++j) {
    for (int k = 0; k < 2; ++k) {
      const int channel = min(2 * (j * WARP + lane) + k, STORED - 1);
      weight[j][k] = of_point[channel];
      weight[j][k].w = __fmul_rn(weight[j][k].w, frame->intensity_scale);
      of_centre[j][k] = of_pillar[2 * channel];
      of_mean[j][k] = of_pillar[2 * channel + 1];
    }
  }
  for (; p < occupied; p += warps) {
    const Pillar pillar = next;
    if (p + warps < occupied) next = pillars[p + warps];  // on its way meanwhile
    if (lane == 0) counts[pillar.cell] = 0;
    if (p >= drawn) continue;
    const int32_t row = pillar.cell / columns, column = pillar.cell - row * columns;
    const float x = centres[column], y = centres[columns + row];
    const int32_t n = pillar.count;
    const bool full = n > MAX_POINTS;
    const int32_t kept = full ? MAX_POINTS : n;
    if (full) choose(members + pillar.begin, n, frame->points, chosen);
    int64_t sum_x = 0, sum_y = 0, sum_z = 0;
    for (int32_t k = lane; k < kept; k += WARP) {
      const float4 q = sorted[pillar.begin + (full ? chosen[k] : k)];
      sum_x += static_cast<int64_t>(__fmul_rn(q.x, scale));
      sum_y += static_cast<int64_t>(__fmul_rn(q.y, scale));
      sum_z += static_cast<int64_t>(__fmul_rn(q.z, scale));
      local[k] = {__fsub_rn(q.x, x), __fsub_rn(q.y, y), __fsub_rn(q.z, z), q.w};
    }
    // as far as points reach, but always over the three lanes that divide
    for (int32_t step = 1; step < min(max(kept, 3), WARP); step *= 2) {
      sum_x += __shfl_xor_sync(ALL_LANES, sum_x, step);
      sum_y += __shfl_xor_sync(ALL_LANES, sum_y, step);
      sum_z += __shfl_xor_sync(ALL_LANES, sum_z, step);
    }
    const int64_t sum = lane == 0 ? sum_x : lane == 1 ? sum_y : sum_z;
    const float mean = mean_of(sum, static_cast<float>(kept), unit);
    const float mean_x = __shfl_sync(ALL_LANES, mean, 0);
    const float mean_y = __shfl_sync(ALL_LANES, mean, 1);
    const float mean_z = __shfl_sync(ALL_LANES, mean, 2);
    if (lane == 0) means[p] = {mean_x, mean_y, mean_z, static_cast<float>(kept)};
    __syncwarp();
    float best[PAIRS_A_LANE][2];
    for (int j = 0; j < PAIRS_A_LANE; ++j) best[j][0] = best[j][1] = -infinity();
#pragma unroll 4
    for (int32_t i = 0; i < kept; ++i) {
      const float4 q = local[i];
#pragma unroll
      for (int j = 0; j < PAIRS_A_LANE; ++j) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          const float4 w = weight[j][k];
          float value = q.x * w.x + q.y * w.y + q.z * w.z;
          if (FOURTH) value += q.w * w.w;
          best[j][k] = fmaxf(best[j][k], value);
        }
      }
    }
    const float dx = __fsub_rn(x, mean_x), dy = __fsub_rn(y, mean_y), dz = __fsub_rn(z, mean_z);
    for (int j = 0; j < PAIRS_A_LANE; ++j) {
      float value[2];
      for (int k = 0; k < 2; ++k) {
        const float4 a = of_centre[j][k], b = of_mean[j][k];  // 3 and 3 weights, bias, least
        const float shared =
            x * a.x + y * a.y + z * a.z + dx * a.w + dy * b.x + dz * b.y + b.z;
        value[k] = fmaxf(best[j][k] + shared, kept < MAX_POINTS ? b.w : 0.0f) + 0.0f;  // no -0
      }
      const int pair = j * WARP + lane;
      if (pair < PAIRS) put(canvas, pair, pillar.cell, rows * columns, value[0], value[1]);
    }
    __syncwarp();  // before the points of the next pillar
  }
}

// What the last cloud drew goes back to zero. hwc8: a thread 16 bytes; else a thread an element,
// neighbouring threads neighbouring pillars.
KERNEL clear_pillars(const Totals* totals, const Pillar* pillars, int32_t cells, void* canvas) {
  const int32_t n = totals->pillars, step = static_cast<int32_t>(thread_count());
  int32_t i = static_cast<int32_t>(thread_index());
#if HWC8
  constexpr int32_t PARTS = STORED / 8;
  for (; i < n * PARTS; i += step) {
    const size_t cell = static_cast<size_t>(pillars[i / PARTS].cell);
    static_cast<uint4*>(canvas)[cell * PARTS + i % PARTS] = uint4{0, 0, 0, 0};
  }
#else
  for (; i < n * CHANNELS; i += step) {
    const size_t at = static_cast<size_t>(i / n) * cells + pillars[i % n].cell;
#if HALF
    static_cast<uint16_t*>(canvas)[at] = 0;
#else
    static_cast<float*>(canvas)[at] = 0.0f;
#endif
  }
#endif
}

// A whole buffer of `halves` times two bytes goes to zero.
KERNEL clear_all(uint16_t* buffer, uint64_t halves) {
  for (uint64_t i = thread_index(); i < halves; i += thread_count()) buffer[i] = 0;
}
