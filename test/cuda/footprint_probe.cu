// What nms.cu knows about pairs of boxes, pair by pair.
#include "footprint.cuh"

KERNEL probe(const float* better, const float* worse, int32_t n, float* rough, double* exact,
             float* slacks, const float* limits, uint8_t* maybe, uint8_t* hits) {
  const uint32_t i = thread_index();
  if (i >= static_cast<uint32_t>(n)) return;
  const Footprint a = footprint(better + 8 * i, 0), b = footprint(worse + 8 * i, 0);
  rough[i] = roughly_shared(a, b);
  exact[i] = exactly_shared(better + 8 * i, worse + 8 * i);
  slacks[i] = slack(a, b);
  maybe[i] = maybe_more(a, b, limits[i]);
  hits[i] = more(a, b, limits[i], better + 8 * i, worse + 8 * i);
}
