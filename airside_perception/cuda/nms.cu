// Greedy suppression of boxes that overlap better ones too much: first within groups, then across
// groups among what is left. `overlaps` says which pairs overlap too much, `suppress` decides.
//
// Rows of `boxes` are (x, y, z, length, width, height, yaw, score), best first; the footprints are
// compared as overlap.py does. A row whose score has the sign bit set suppresses others, but is
// not put out. Compiled with -DVELOCITIES, velocities go the way of their rows.
#include "common.cuh"
#include "footprint.cuh"
#include "frame.cuh"

constexpr uint32_t MOST = 10240;  // boxes
constexpr uint32_t TILE = 64;     // boxes of a word
constexpr uint32_t STRIP = 16;    // worse boxes that a block compares with TILE better ones
constexpr uint32_t THREADS = 128, STRIPS = TILE / STRIP;
constexpr uint32_t COLUMNS = MOST / TILE;

// ---- the pairs that overlap too much --------------------------------------------------------------

// Words of pairs: bit b of a word says that a box overlaps the b-th box of a column of TILE better
// ones. Tiles of TILE words stand row by row, up to the diagonal.
__device__ __forceinline__ uint32_t first_word(uint32_t row) {
  return row * (row + 1u) / 2u * TILE;
}

// Words of all pairs of n boxes.
__device__ __forceinline__ uint32_t words_of(uint32_t n) {
  return first_word((n + TILE - 1u) / TILE);
}

// IoU that a pair must exceed; 1 is never exceeded.
struct Limits {
  float within, across;
};

__device__ __forceinline__ Limits limits_of(const Frame* frame) {
  return {frame->nms_iou, fmaxf(frame->nms_iou, frame->nms_iou_across)};
}

__device__ __forceinline__ Footprint footprint_of(const float* __restrict__ boxes,
                                                  const uint64_t* __restrict__ best,
                                                  const Frame* frame, uint32_t i) {
  return footprint(boxes + 8 * i, frame->groups[best[i] & 127u]);
}

// Blocks of THREADS, any number: each takes strips of tiles; the bounds of all pairs first, then
// the overlap of those near one another by all threads together. `words` [2, words_of(n)]: the pairs
// within groups and, if their limit is below 1, across groups. `pairs` counts both.
KERNEL __launch_bounds__(THREADS, 6)
overlaps(const float* __restrict__ boxes, const uint64_t* __restrict__ best,
         const uint32_t* chosen, const Frame* frame, uint64_t* words, uint32_t* pairs) {
  __shared__ Footprint rows[STRIP], columns[TILE];
  __shared__ uint16_t near[STRIP * TILE];
  __shared__ uint32_t nearby, hits[2][STRIP][2];
  constexpr uint32_t AT_ONCE = THREADS / TILE;
  const uint32_t n = *chosen, thread = threadIdx.x, lane = lane_index();
  const Limits limits = limits_of(frame);
  if (limits.within >= 1.0f) return;
  const uint32_t tile_rows = (n + TILE - 1u) / TILE;
  for (uint32_t strip = blockIdx.x; strip < tile_rows * (tile_rows + 1u) / 2u * STRIPS;
       strip += gridDim.x) {
    const uint32_t tile = strip / STRIPS;
    const float guess = (sqrtf(8.0f * static_cast<float>(tile) + 1.0f) - 1.0f) * 0.5f;
    uint32_t row = static_cast<uint32_t>(guess);
    while (row * (row + 1u) / 2u > tile) --row;
    while ((row + 1u) * (row + 2u) / 2u <= tile) ++row;
    const uint32_t column = tile - row * (row + 1u) / 2u;
    const uint32_t first_worse = row * TILE + strip % STRIPS * STRIP;
    const uint32_t first_better = column * TILE;
    __syncthreads();  // the last strip is done with
    if (thread < TILE) {
      if (first_better + thread < n) {
        columns[thread] = footprint_of(boxes, best, frame, first_better + thread);
      }
    } else if (thread < TILE + STRIP) {
      if (first_worse + thread - TILE < n) {
        rows[thread - TILE] = footprint_of(boxes, best, frame, first_worse + thread - TILE);
      }
    } else if (thread == TILE + STRIP) {
      nearby = 0;
    }
    if (thread < 4u * STRIP) (&hits[0][0][0])[thread] = 0;
    __syncthreads();
    const uint32_t b = thread % TILE;
    const Footprint better = columns[b];
    uint32_t touching = 0, close = 0;
#pragma unroll
    for (uint32_t k = 0; k < STRIP / AT_ONCE; ++k) {
      const uint32_t w = k * AT_ONCE + thread / TILE;
      const bool is_pair = first_worse + w < n && first_better + b < first_worse + w;
      touching |= static_cast<uint32_t>(is_pair & bounds_touch(better, rows[w])) << k;
    }
    for (; touching; touching &= touching - 1u) {  // few
      const Footprint& worse = rows[(__ffs(touching) - 1) * AT_ONCE + thread / TILE];
      const float iou = worse.group == better.group ? limits.within : limits.across;
      if (iou < 1.0f && maybe_more(better, worse, iou)) close |= touching & -touching;
    }
    const uint32_t own = static_cast<uint32_t>(__popc(close)), up_to = warp_running_sum(own);
    uint32_t slot = 0;
    if (lane == 31) slot = atomicAdd(&nearby, up_to);
    slot = __shfl_sync(ALL_LANES, slot, 31) + up_to - own;
    for (; close; close &= close - 1u) {
      const uint32_t w = (__ffs(close) - 1) * AT_ONCE + thread / TILE;
      near[slot++] = static_cast<uint16_t>(w * TILE + b);
    }
    __syncthreads();
    for (uint32_t i = thread; i < nearby; i += THREADS) {
      const uint32_t w = near[i] / TILE, bit = near[i] % TILE;
      const Footprint& a = columns[bit];
      const Footprint& b = rows[w];
      const bool across = a.group != b.group;
      if (more(a, b, across ? limits.across : limits.within, boxes + 8 * (first_better + bit),
               boxes + 8 * (first_worse + w))) {
        atomicOr(&hits[across][w][bit / 32u], 1u << bit % 32u);
      }
    }
    __syncthreads();
    if (thread < 2u * STRIP) {  // one warp
      const uint32_t across = thread / STRIP, w = thread % STRIP;
      const uint32_t low = hits[across][w][0], high = hits[across][w][1];
      if (!across || limits.across < 1.0f) {
        words[across * words_of(n) + tile * TILE + strip % STRIPS * STRIP + w] =
            low | static_cast<uint64_t>(high) << 32;
      }
      const uint32_t found = warp_sum(static_cast<uint32_t>(__popc(low) + __popc(high)));
      if (thread == 0 && found > 0) atomicAdd(pairs, found);
    }
  }
}

// ---- who is kept --------------------------------------------------------------------------------

// What is decided of TILE boxes; they are open before. A bit is set once and stays, so that what
// is read while others write is never wrong, only late.
struct __align__(16) Verdicts {
  uint32_t kept[2], removed[2];
};

constexpr uint32_t BATCH = 8;  // words of a box that are on their way at a time

// A box is removed when a better one that overlaps it is kept, and kept when all of those are
// removed: the only solution is that of the greedy order. Each round decides all that can be
// decided, at least the best box that is open.
__device__ __forceinline__ void settle(Verdicts* verdicts, const uint64_t* __restrict__ words,
                                       uint32_t n) {
  const uint32_t lane = lane_index(), columns = (n + TILE - 1u) / TILE;
  // before `from`: columns that had been decided when the last round began, and count no more
  uint32_t from = 0, decided = 0;
  for (;;) {
    const uint32_t ahead = decided + lane;
    const bool is_open =
        ahead < columns && ((verdicts[ahead].kept[0] | verdicts[ahead].removed[0]) &
                            (verdicts[ahead].kept[1] | verdicts[ahead].removed[1])) != ALL_LANES;
    const uint32_t first_open = __ballot_sync(ALL_LANES, is_open);
    decided += first_open ? static_cast<uint32_t>(__ffs(first_open)) - 1u : 32u;
    bool open = false;
    for (uint32_t i = threadIdx.x; i < columns * TILE; i += blockDim.x) {
      const uint32_t row = i / TILE, half = i / 32u % 2u;
      const uint32_t kept = verdicts[row].kept[half], removed = verdicts[row].removed[half];
      if ((kept | removed) == ALL_LANES) continue;  // the whole warp
      const bool asked = !((kept | removed) >> lane & 1u);
      uint32_t hit = 0, blocked = 0;
      if (asked) {
        const uint64_t* of_box = words + first_word(row) + i % TILE;
        for (uint32_t column = from; column <= row; column += BATCH) {
          uint64_t word[BATCH];  // beyond the row its last word again, which changes nothing
#pragma unroll
          for (uint32_t k = 0; k < BATCH; ++k) word[k] = of_box[min(column + k, row) * TILE];
#pragma unroll
          for (uint32_t k = 0; k < BATCH; ++k) {
            const uint32_t low = static_cast<uint32_t>(word[k]);
            const uint32_t high = static_cast<uint32_t>(word[k] >> 32);
            const Verdicts of = verdicts[min(column + k, row)];
            hit |= (low & of.kept[0]) | (high & of.kept[1]);
            blocked |= (low & ~of.removed[0]) | (high & ~of.removed[1]);
          }
        }
        open = open || (!hit && blocked);
      }
      const uint32_t now_removed = __ballot_sync(ALL_LANES, asked && hit);
      const uint32_t now_kept = __ballot_sync(ALL_LANES, asked && !hit && !blocked);
      if (lane == 0) {
        verdicts[row].kept[half] = kept | now_kept;
        verdicts[row].removed[half] = removed | now_removed;
      }
    }
    if (!__syncthreads_or(open)) return;
    from = decided;
  }
}

// One block of 1,024 threads: decides, puts out the rows that are kept, and clears the counters for
// the next frame. `totals`: of pillars.cu, the second is occupied pillars, the third points in range.
// The bound of one block leaves it 64 registers a thread, for the words that are on their way.
KERNEL __launch_bounds__(1024, 1)
suppress(const float* __restrict__ boxes, const uint64_t* __restrict__ best,
         const uint32_t* chosen, const Frame* frame, const uint64_t* __restrict__ words,
         const uint32_t* pairs, const int32_t* totals, uint32_t* count, uint32_t* flags,
#ifdef VELOCITIES
         const float* __restrict__ velocities,
#endif
         Result* result) {
  __shared__ Verdicts verdicts[COLUMNS];
  __shared__ uint32_t kept[32];
  const uint32_t n = *chosen, thread = threadIdx.x, lane = lane_index();
  const Limits limits = limits_of(frame);
  const bool any = limits.within < 1.0f;
  for (uint32_t c = thread; c < COLUMNS; c += blockDim.x) {
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t first = c * TILE + half * 32u;
      const uint32_t left = n > first ? n - first : 0;
      const uint32_t there = left >= 32u ? ALL_LANES : (1u << left) - 1u;
      verdicts[c].kept[half] = any ? 0 : there;
      verdicts[c].removed[half] = ~there;
    }
  }
  __syncthreads();
  if (any) {
    settle(verdicts, words, n);
    if (limits.across < 1.0f) {
      for (uint32_t c = thread; c < COLUMNS; c += blockDim.x) {
        for (uint32_t half = 0; half < 2; ++half) {
          verdicts[c].removed[half] = ~verdicts[c].kept[half];
          verdicts[c].kept[half] = 0;
        }
      }
      __syncthreads();
      settle(verdicts, words + words_of(n), n);
    }
  }
  const uint32_t limit = min(static_cast<uint32_t>(max(frame->max_detections, 0)),
                             static_cast<uint32_t>(MOST_ROWS));
  uint32_t written = 0;
  for (uint32_t start = 0; start < n && written < limit; start += blockDim.x) {
    const uint32_t i = start + thread;
    const bool keeps = i < n && verdicts[i / TILE].kept[i / 32u % 2u] >> lane & 1u &&
                       !(__float_as_uint(boxes[8 * i + 7]) & 0x80000000u);
    const uint32_t lanes = __ballot_sync(ALL_LANES, keeps);
    __syncthreads();  // `kept` of the last part is read
    if (lane == 0) kept[thread >> 5] = static_cast<uint32_t>(__popc(lanes));
    __syncthreads();
    const uint32_t own = kept[lane];
    const uint32_t running = warp_running_sum(own);
    const uint32_t before = __shfl_sync(ALL_LANES, running - own, static_cast<int>(thread >> 5));
    const uint32_t slot = written + before + __popc(lanes & ((1u << lane) - 1u));
    if (keeps && slot < limit) {
      const float4 a = reinterpret_cast<const float4*>(boxes)[2 * i];
      const float4 b = reinterpret_cast<const float4*>(boxes)[2 * i + 1];
      result->rows[slot] = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z}, b.w,
                            static_cast<float>(best[i] & 127u)};
#ifdef VELOCITIES
      float* velocity = reinterpret_cast<ResultWithVelocities*>(result)->velocities[slot];
      velocity[0] = velocities[2 * i];
      velocity[1] = velocities[2 * i + 1];
#endif
    }
    written += __shfl_sync(ALL_LANES, running, 31);
  }
  if (thread == 0) {
    result->count = min(written, limit);
    result->flags = *flags;
    result->candidates = *count;
    result->in_range = static_cast<uint32_t>(totals[2]);
    result->pillars = static_cast<uint32_t>(totals[1]);
    result->considered = n;
    result->pairs = *pairs;
    *flags = 0;
    *count = 0;
  }
}
