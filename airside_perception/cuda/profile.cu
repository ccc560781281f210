// Keeps the GPU busy while the host enqueues what is to be timed.
#include "common.cuh"

// One thread: waits for so many nanoseconds.
KERNEL wait(uint64_t nanoseconds) {
#ifndef EMULATED
  uint64_t now, start;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - start < nanoseconds);
#endif
}
