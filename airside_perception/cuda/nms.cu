// Greedy suppression of boxes that overlap better ones too much: first within groups, then across
// groups among what is left. `overlaps` lists the pairs that overlap too much, `suppress` decides.
//
// Rows of `boxes` are (x, y, z, length, width, height, yaw, score), best first; the footprints are
// compared as overlap.py does. A row whose score has the sign bit set suppresses others, but is
// not put out.
#include "common.cuh"
#include "footprint.cuh"
#include "frame.cuh"

constexpr uint32_t MOST = 10240;           // boxes
constexpr uint32_t PAIRS = 1u << 18;       // pairs that are listed; with more, boxes go one by one
constexpr uint32_t TILE = 64, THREADS = 256;
constexpr uint32_t LISTED = 6144;          // pairs that fit into shared memory

// ---- the pairs that overlap too much --------------------------------------------------------------

// A pair is worse << 16 | better << 1 | (whether the groups differ).
__device__ __forceinline__ uint32_t pair_of(uint32_t better, uint32_t worse, bool across) {
  return worse << 16 | better << 1 | static_cast<uint32_t>(across);
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

// Blocks of THREADS, any number: each takes tiles of TILE x TILE pairs; the bounds of all pairs
// first, then the overlap of those near one another by all threads together. The order in the list
// depends on timing, what it holds does not.
KERNEL __launch_bounds__(THREADS, 3)
overlaps(const float* __restrict__ boxes, const uint64_t* __restrict__ best,
         const uint32_t* chosen, const Frame* frame, uint32_t* list, uint32_t* pairs) {
  __shared__ Footprint rows[TILE], columns[TILE];
  __shared__ uint16_t near[TILE * TILE];
  __shared__ uint32_t nearby;
  const uint32_t n = *chosen, thread = threadIdx.x, lane = lane_index();
  const Limits limits = limits_of(frame);
  if (limits.within >= 1.0f) return;
  const uint32_t tiles = (n + TILE - 1u) / TILE;
  for (uint32_t tile = blockIdx.x; tile < tiles * (tiles + 1u) / 2u; tile += gridDim.x) {
    const float guess = (sqrtf(8.0f * static_cast<float>(tile) + 1.0f) - 1.0f) * 0.5f;
    uint32_t row = static_cast<uint32_t>(guess);
    while (row * (row + 1u) / 2u > tile) --row;
    while ((row + 1u) * (row + 2u) / 2u <= tile) ++row;
    const uint32_t column = tile - row * (row + 1u) / 2u;
    const uint32_t first_worse = row * TILE, first_better = column * TILE;
    __syncthreads();  // the last tile is done with
    if (thread < TILE) {
      if (first_worse + thread < n) {
        rows[thread] = footprint_of(boxes, best, frame, first_worse + thread);
      }
    } else if (thread < 2u * TILE) {
      if (first_better + thread - TILE < n) {
        columns[thread - TILE] = footprint_of(boxes, best, frame, first_better + thread - TILE);
      }
    } else if (thread == 2u * TILE) {
      nearby = 0;
    }
    __syncthreads();
    const uint32_t b = thread % TILE;
    const Footprint better = columns[b];
    for (uint32_t w = thread / TILE; w < TILE; w += THREADS / TILE) {
      bool close = first_worse + w < n && first_better + b < first_worse + w;
      if (close) {
        const float iou = rows[w].group == better.group ? limits.within : limits.across;
        close = iou < 1.0f && maybe_more(better, rows[w], iou);
      }
      const uint32_t lanes = __ballot_sync(ALL_LANES, close);
      if (lanes == 0) continue;
      uint32_t slot = 0;
      if (lane == 0) slot = atomicAdd(&nearby, static_cast<uint32_t>(__popc(lanes)));
      slot = __shfl_sync(ALL_LANES, slot, 0) + __popc(lanes & ((1u << lane) - 1u));
      if (close) near[slot] = static_cast<uint16_t>(w * TILE + b);
    }
    __syncthreads();
    const uint32_t count = nearby;
    for (uint32_t i = thread; i < ((count + 31u) & ~31u); i += THREADS) {
      bool hit = false, across = false;
      uint32_t worse = 0, better_row = 0;
      if (i < count) {
        const Footprint& a = columns[near[i] % TILE];
        const Footprint& b = rows[near[i] / TILE];
        better_row = first_better + near[i] % TILE;
        worse = first_worse + near[i] / TILE;
        across = a.group != b.group;
        hit = more(a, b, across ? limits.across : limits.within, boxes + 8 * better_row,
                   boxes + 8 * worse);
      }
      const uint32_t lanes = __ballot_sync(ALL_LANES, hit);
      if (lanes == 0) continue;
      uint32_t slot = 0;
      if (lane == 0) slot = atomicAdd(pairs, static_cast<uint32_t>(__popc(lanes)));
      slot = __shfl_sync(ALL_LANES, slot, 0) + __popc(lanes & ((1u << lane) - 1u));
      if (hit && slot < PAIRS) list[slot] = pair_of(better_row, worse, across);
    }
  }
}

// ---- who is kept --------------------------------------------------------------------------------

enum State : uint8_t { OPEN = 0, KEPT = 1, REMOVED = 2 };

struct Verdicts {
  uint8_t state[MOST];
  uint8_t blocked[MOST];  // whether a better box that overlaps is open as well
};

// What one pair says about its worse box. Others may change the states meanwhile: only from open
// to removed, and then this pair is asked again or does not matter.
__device__ __forceinline__ void weigh(Verdicts& verdicts, uint32_t pair, uint32_t across) {
  const uint32_t worse = pair >> 16, better = pair >> 1 & 0x7fffu;
  if ((pair & 1u) != across || verdicts.state[worse] != OPEN) return;
  const uint8_t state = verdicts.state[better];
  if (state == KEPT) {
    verdicts.state[worse] = REMOVED;
  } else if (state == OPEN) {
    verdicts.blocked[worse] = 1;
  }
}

// Whether a pair can still decide anything, now or when groups are compared.
__device__ __forceinline__ bool matters(const Verdicts& verdicts, uint32_t pair) {
  const uint8_t worse = verdicts.state[pair >> 16], better = verdicts.state[pair >> 1 & 0x7fffu];
  if (pair & 1u) return worse != REMOVED && better != REMOVED;
  return worse == OPEN && better != REMOVED;
}

// Keeps the open boxes that nothing blocks; whether any is still open. A barrier.
__device__ __forceinline__ bool decide(Verdicts& verdicts, uint32_t n) {
  __syncthreads();
  bool open = false;
  for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
    if (verdicts.state[i] == OPEN) {
      if (verdicts.blocked[i]) {
        open = true;
      } else {
        verdicts.state[i] = KEPT;
      }
    }
    verdicts.blocked[i] = 0;
  }
  return __syncthreads_or(open);
}

// The pairs of a frame: in device memory, or as soon as they fit in shared memory.
struct List {
  const uint32_t* __restrict__ far;
  uint32_t* near;      // LISTED
  uint32_t* counter;   // shared
  uint32_t size;
  bool is_near;
};

// Each of the pairs in device memory, by all threads; eight are on their way at a time.
template <typename Action>
__device__ __forceinline__ void for_each_far(const List& list, Action action) {
  const uint4* vectors = reinterpret_cast<const uint4*>(list.far);
  for (uint32_t start = 0; start < list.size; start += 8u * blockDim.x) {
    const uint32_t first = start / 4u + threadIdx.x, second = first + blockDim.x;
    const uint4 none = make_uint4(0u, 0u, 0u, 0u);
    const uint4 a = 4u * first < list.size ? vectors[first] : none;
    const uint4 b = 4u * second < list.size ? vectors[second] : none;
    const uint32_t pairs[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
    for (uint32_t k = 0; k < 8; ++k) {
      if (4u * (k < 4 ? first : second) + k % 4u < list.size) action(pairs[k]);
    }
  }
}

// Moves the pairs that still matter to shared memory if they fit.
__device__ __forceinline__ void draw_near(List& list, const Verdicts& verdicts) {
  if (threadIdx.x == 0) *list.counter = 0;
  __syncthreads();
  for_each_far(list, [&](uint32_t pair) {
    if (!matters(verdicts, pair)) return;
    const uint32_t slot = atomicAdd(list.counter, 1u);
    if (slot < LISTED) list.near[slot] = pair;
  });
  __syncthreads();
  if (*list.counter <= LISTED) {
    list.size = *list.counter;
    list.is_near = true;
  }
}

// A box is removed when a better one that overlaps it is kept, and kept when all of those are
// removed: the only solution is that of the greedy order. Each round decides all that can be
// decided, at least the best box that is open.
__device__ __forceinline__ void settle(Verdicts& verdicts, List& list, uint32_t n, uint32_t across) {
  for (uint32_t round = 0;; ++round) {
    if (list.is_near) {
      for (uint32_t i = threadIdx.x; i < list.size; i += blockDim.x) {
        weigh(verdicts, list.near[i], across);
      }
    } else {
      for_each_far(list, [&](uint32_t pair) { weigh(verdicts, pair, across); });
    }
    const bool open = decide(verdicts, n);
    if (!list.is_near && (round > 0 || list.size <= LISTED)) draw_near(list, verdicts);
    if (!open) return;
  }
}

// The same where there are too many pairs to list them: box by box, as in textbooks.
__device__ __noinline__ void one_by_one(Verdicts& verdicts, const float* __restrict__ boxes,
                                        const uint64_t* __restrict__ best, const Frame* frame,
                                        uint32_t n, bool across) {
  const Limits limits = limits_of(frame);
  const float iou = across ? limits.across : limits.within;
  for (uint32_t i = 0; i < n; ++i) {
    if (verdicts.state[i] == REMOVED) continue;
    const Footprint better = footprint_of(boxes, best, frame, i);
    for (uint32_t j = i + 1u + threadIdx.x; j < n; j += blockDim.x) {
      if (verdicts.state[j] == REMOVED) continue;
      const Footprint worse = footprint_of(boxes, best, frame, j);
      if ((better.group != worse.group) == across && maybe_more(better, worse, iou) &&
          more(better, worse, iou, boxes + 8 * i, boxes + 8 * j)) {
        verdicts.state[j] = REMOVED;
      }
    }
    if (threadIdx.x == 0) verdicts.state[i] = KEPT;
    __syncthreads();
  }
}

// One block of 1,024 threads: decides, puts out the rows that are kept, and clears the counters for
// the next frame. `totals`: of pillars.cu, the second is occupied pillars, the third points in range.
KERNEL __launch_bounds__(1024)
suppress(const float* __restrict__ boxes, const uint64_t* __restrict__ best,
         const uint32_t* chosen, const Frame* frame, const uint32_t* __restrict__ list,
         const uint32_t* pairs, const int32_t* totals, uint32_t* count, uint32_t* flags,
         Result* result) {
  __shared__ Verdicts verdicts;
  __shared__ uint32_t near[LISTED];
  __shared__ uint32_t counter, kept[32];
  const uint32_t n = *chosen, total = *pairs, thread = threadIdx.x, lane = lane_index();
  for (uint32_t i = thread; i < n; i += blockDim.x) {
    verdicts.state[i] = OPEN;
    verdicts.blocked[i] = 0;
  }
  __syncthreads();
  if (total <= PAIRS) {
    List pending = {list, near, &counter, total, false};
    settle(verdicts, pending, n, 0);
    for (uint32_t i = thread; i < n; i += blockDim.x) {
      if (verdicts.state[i] == KEPT) verdicts.state[i] = OPEN;
    }
    __syncthreads();
    settle(verdicts, pending, n, 1);
  } else {
    one_by_one(verdicts, boxes, best, frame, n, false);
    if (limits_of(frame).across < 1.0f) one_by_one(verdicts, boxes, best, frame, n, true);
  }
  const uint32_t limit = min(static_cast<uint32_t>(max(frame->max_detections, 0)),
                             static_cast<uint32_t>(MOST_ROWS));
  uint32_t written = 0;
  for (uint32_t start = 0; start < n && written < limit; start += blockDim.x) {
    const uint32_t i = start + thread;
    const bool keeps = i < n && verdicts.state[i] == KEPT &&
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
    result->pairs = total;
    *flags = 0;
    *count = 0;
  }
}
