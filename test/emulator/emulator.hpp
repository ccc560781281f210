// Runs CUDA kernels on the CPU: each CUDA thread is a fiber, blocks run one after another.
//
// What it shows: wrong indices and arithmetic, a missing or diverging barrier, dependence on the
// order of threads and blocks (both are shuffled by a seed), reads of memory never written (shared
// memory starts as 0xff, that is NaN), lanes that meet in different warp operations.
// What it cannot show: speed, contraction to FMA (unless compiled for it), blocks that wait for
// each other (such a kernel never ends here), misaligned access.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// ---- the vocabulary of CUDA C++ ------------------------------------------------------------

#define __global__ [[maybe_unused]]
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("emulated_shared"), used, aligned(16)))
#define __builtin_assume(condition) ((void)0)
#define __trap() emulator::fail("__trap()")

struct uint3 {
  unsigned x, y, z;
};
using dim3 = uint3;

#define EMULATED_VECTORS(scalar, name, bytes)                                              \
  struct alignas(bytes * 2) name##2 { scalar x, y; };                                      \
  struct name##3 { scalar x, y, z; };                                                      \
  struct alignas(bytes * 4 > 16 ? 16 : bytes * 4) name##4 { scalar x, y, z, w; };          \
  inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                     \
  inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }        \
  inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
EMULATED_VECTORS(float, float, 4)
EMULATED_VECTORS(double, double, 8)
EMULATED_VECTORS(int, int, 4)
EMULATED_VECTORS(short, short, 2)
EMULATED_VECTORS(unsigned short, ushort, 2)
EMULATED_VECTORS(unsigned char, uchar, 1)
EMULATED_VECTORS(long long, longlong, 8)
EMULATED_VECTORS(unsigned long long, ulonglong, 8)
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

// ---- fibers -----------------------------------------------------------------------------------

namespace emulator {

using u64 = unsigned long long;
constexpr unsigned MOST_THREADS = 1024;
constexpr size_t STACK = 128 << 10;
constexpr unsigned SHARED_LIMIT = 163 << 10;  // of one block on sm_87, the smaller target
constexpr u64 CANARY = 0x5ca1ab1e0ddba11ull;

#if defined(__x86_64__)
// Saves the registers that a call preserves and the stack pointer, and takes up another stack.
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(void** from, void* to);
asm(R"(
.text
.hidden emulator_switch
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, .-emulator_switch
)");

struct Context {
  void* stack = nullptr;
  void start(char* base, void (*entry)()) {
    void** top = reinterpret_cast<void**>(base + STACK) - 1;
    *top = nullptr;  // entry() sees a stack aligned as after a call
    *--top = reinterpret_cast<void*>(entry);
    stack = top - 6;
    std::memset(stack, 0, 6 * sizeof(void*));
  }
  void leave_for(Context& other) { emulator_switch(&stack, other.stack); }
};
#else
struct Context {
  ucontext_t state;
  void start(char* base, void (*entry)()) {
    getcontext(&state);
    state.uc_stack.ss_sp = base;
    state.uc_stack.ss_size = STACK;
    state.uc_link = nullptr;
    makecontext(&state, entry, 0);
  }
  void leave_for(Context& other) { swapcontext(&state, &other.state); }
};
#endif

// ---- one block of threads ---------------------------------------------------------------------

enum Operation { NONE, SHUFFLE, BALLOT, ANY, ALL, ADD, LEAST_SIGNED, LEAST, MOST_SIGNED, MOST, AND,
                 OR, XOR, MATCH, SYNC, BARRIER };

struct Thread {
  Context context;
  uint3 index;
  bool alive;
  Operation waits;  // NONE: runs or is ready to
  unsigned mask;    // lanes that it waits for
  int source;
  u64 value, result;
};

static Thread threads[MOST_THREADS];
static char* stacks = nullptr;
static unsigned count, alive, at_barrier, self;
static unsigned in_warp[MOST_THREADS / 32];  // threads of a warp that wait for others of it
static std::vector<unsigned> ready;
static size_t first_ready;
static Context scheduler;
static void (*body)(void**);
static void** arguments;
static u64 random_state;
static std::string error;
alignas(128) static char dynamic_memory[SHARED_LIMIT + 64];

inline void* dynamic_shared() { return dynamic_memory; }

inline u64 random() {  // xorshift64*
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545f4914f6cdd1dull;
}

template <typename T>
void shuffle(T* first, size_t n) {
  for (size_t i = n; i > 1; --i) std::swap(first[i - 1], first[random() % i]);
}

// Runs the next thread that can go on; the scheduler when there is none.
__attribute__((noinline)) static void next() {
  const unsigned left = self;
  if (first_ready < ready.size() && error.empty()) {
    self = ready[first_ready++];
    if (first_ready > 4096) {
      ready.erase(ready.begin(), ready.begin() + first_ready);
      first_ready = 0;
    }
    threadIdx = threads[self].index;
    if (self == left) return;
    threads[left].context.leave_for(threads[self].context);
  } else {
    threads[left].context.leave_for(scheduler);
  }
  asm volatile("" ::: "memory");
}

static std::string place() {
  char text[128];
  std::snprintf(text, sizeof text, "block (%u, %u), thread (%u, %u): ", blockIdx.x, blockIdx.y,
                threadIdx.x, threadIdx.y);
  return text;
}

[[noreturn]] static void fail(const std::string& what) {
  if (error.empty()) error = place() + what;
  for (;;) threads[self].context.leave_for(scheduler);
}

static void wake(unsigned thread, u64 result) {
  threads[thread].result = result;
  in_warp[thread >> 5] -= threads[thread].waits != BARRIER;
  threads[thread].waits = NONE;
  if (thread != self) ready.push_back(thread);
}

// Ends the barrier when every thread that is alive has come.
static void settle_barrier() {
  if (at_barrier == 0 || at_barrier < alive) return;
  u64 votes = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (threads[i].waits == BARRIER) votes += threads[i].value != 0;
  }
  const size_t before = ready.size();
  for (unsigned i = 0; i < count; ++i) {
    if (threads[i].waits == BARRIER) wake(i, votes);
  }
  shuffle(ready.data() + before, ready.size() - before);
  at_barrier = 0;
}

static u64 combine(Operation operation, u64 a, u64 b) {
  const int signed_a = static_cast<int>(a), signed_b = static_cast<int>(b);
  switch (operation) {
    case ADD: return static_cast<unsigned>(a + b);
    case LEAST_SIGNED: return static_cast<unsigned>(std::min(signed_a, signed_b));
    case MOST_SIGNED: return static_cast<unsigned>(std::max(signed_a, signed_b));
    case LEAST: return std::min(a, b);
    case MOST: return std::max(a, b);
    case AND: return a & b;
    case OR: return a | b;
    default: return a ^ b;
  }
}

// Ends the warp operation that `thread` waits in when all living lanes of its mask have come.
static void settle_warp(unsigned thread) {
  const unsigned first = thread & ~31u, mask = threads[thread].mask;
  const Operation operation = threads[thread].waits;
  unsigned lanes = 0;
  for (unsigned lane = 0; lane < 32 && first + lane < count; ++lane) {
    const Thread& other = threads[first + lane];
    if (!(mask >> lane & 1) || !other.alive) continue;
    if (other.waits == NONE || other.waits == BARRIER || other.mask != mask) return;
    if (other.waits != operation) {
      fail("lanes of one warp meet in different warp operations");
    }
    lanes |= 1u << lane;
  }
  u64 results[32] = {}, votes = 0, total = 0;
  bool begun = false;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    const u64 value = threads[first + lane].value;
    votes |= static_cast<u64>(value != 0) << lane;
    total = begun ? combine(operation, total, value) : value;
    begun = true;
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    const Thread& own = threads[first + lane];
    switch (operation) {
      case SHUFFLE:
        results[lane] = own.source >= 0 && (lanes >> own.source & 1)
                            ? threads[first + own.source].value : ~0ull;  // undefined in CUDA
        break;
      case BALLOT: results[lane] = votes; break;
      case ANY: results[lane] = votes != 0; break;
      case ALL: results[lane] = votes == lanes; break;
      case MATCH:
        for (unsigned other = 0; other < 32; ++other) {
          if (lanes >> other & 1 && threads[first + other].value == own.value) {
            results[lane] |= 1ull << other;
          }
        }
        break;
      default: results[lane] = total;
    }
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (lanes >> lane & 1) wake(first + lane, results[lane]);
  }
}

static void finish() {
  Thread& own = threads[self];
  own.alive = false;
  --alive;
  const unsigned first = self & ~31u;
  for (unsigned lane = 0; in_warp[self >> 5] && lane < 32 && first + lane < count; ++lane) {
    const Thread& other = threads[first + lane];
    if (other.alive && other.waits != NONE && other.waits != BARRIER) settle_warp(first + lane);
  }
  settle_barrier();
  for (;;) next();
}

static void thread_main() {
  body(arguments);
  finish();
}

inline unsigned lane() { return self & 31; }

static u64 warp(Operation operation, unsigned mask, u64 value, int source) {
  Thread& own = threads[self];
  if (!(mask >> lane() & 1)) fail("a lane is not in the mask of its own warp operation");
  own.waits = operation;
  ++in_warp[self >> 5];
  own.mask = mask;
  own.value = value;
  own.source = source;
  const unsigned thread = self;
  settle_warp(thread);
  if (threads[thread].waits != NONE) next();
  asm volatile("" ::: "memory");
  return threads[thread].result;
}

static u64 barrier(u64 value) {
  Thread& own = threads[self];
  own.waits = BARRIER;
  own.value = value;
  ++at_barrier;
  const unsigned thread = self;
  settle_barrier();
  if (threads[thread].waits == NONE) {  // the last to come: others may well go on first
    ready.push_back(thread);
  }
  next();
  asm volatile("" ::: "memory");
  return threads[thread].result;
}

extern "C" char __start_emulated_shared[] __attribute__((visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((visibility("hidden")));
__attribute__((section("emulated_shared"), used)) static char section_is_there[16];

static void run_block(unsigned shared) {
  std::memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
  std::memset(dynamic_memory, 0xff, shared + 64);
  alive = count;
  at_barrier = 0;
  std::memset(in_warp, 0, sizeof in_warp);
  first_ready = 0;
  ready.resize(count);
  std::iota(ready.begin(), ready.end(), 0u);
  shuffle(ready.data(), count);
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    thread.alive = true;
    thread.waits = NONE;
    std::memcpy(stacks + i * STACK, &CANARY, sizeof CANARY);
    thread.context.start(stacks + i * STACK, thread_main);
  }
  self = ready[first_ready++];
  threadIdx = threads[self].index;
  scheduler.leave_for(threads[self].context);
  asm volatile("" ::: "memory");
  if (error.empty() && alive > 0) {
    char text[256];
    std::snprintf(text, sizeof text,
                  "deadlock: of %u threads %u have ended, %u wait at __syncthreads and %u in "
                  "operations of their warp that the others never reach",
                  count, count - alive, at_barrier, alive - at_barrier);
    error = place() + text;
  }
  for (unsigned i = 0; i < count && error.empty(); ++i) {
    if (std::memcmp(stacks + i * STACK, &CANARY, sizeof CANARY) != 0) {
      error = place() + "a thread used more than 128 KiB of stack";
    }
  }
  for (unsigned i = 0; i < 64 && error.empty(); ++i) {
    if (dynamic_memory[shared + i] != '\xff') {
      error = place() + "a thread wrote beyond the dynamic shared memory";
    }
  }
}

// Runs all blocks of a grid in an order drawn from `seed`; returns what went wrong, or ''.
static const char* launch(void (*kernel)(void**), void** values, const unsigned* grid,
                          const unsigned* block, unsigned shared, u64 seed) {
  error.clear();
  if (stacks == nullptr) stacks = static_cast<char*>(std::malloc(MOST_THREADS * STACK));
  body = kernel;
  arguments = values;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  count = block[0] * block[1] * block[2];
  random_state = (seed + 1) * 0x9e3779b97f4a7c15ull;
  std::vector<unsigned> order(static_cast<size_t>(grid[0]) * grid[1] * grid[2]);
  std::iota(order.begin(), order.end(), 0u);
  shuffle(order.data(), order.size());
  for (const unsigned i : order) {
    blockIdx = {i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
    run_block(shared);
    if (!error.empty()) break;
  }
  return error.c_str();
}

// ---- what the compiler's sanitizer finds (its run-time library is not used) ----------------------

extern "C" {
struct SourceLocation {
  const char* file;
  uint32_t line, column;
};

__attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1(SourceLocation* at,
                                                                           void* address) {
  char text[256];
  std::snprintf(text, sizeof text, "%s:%u: misaligned access to %p", at->file, at->line, address);
  fail(text);
}
__attribute__((visibility("hidden"))) void __ubsan_handle_shift_out_of_bounds(SourceLocation* at,
                                                                              void*, void*) {
  fail(std::string(at->file) + ":" + std::to_string(at->line) + ": shift by too many bits");
}
__attribute__((visibility("hidden"))) void __ubsan_handle_out_of_bounds(SourceLocation* at, void*) {
  fail(std::string(at->file) + ":" + std::to_string(at->line) + ": index beyond an array");
}
__attribute__((visibility("hidden"))) void __ubsan_handle_float_cast_overflow(void*, void*) {
  fail("a float beyond the integer's range was cast: __float2int_rz and its like are defined");
}
}

// ---- arguments --------------------------------------------------------------------------------

template <typename T>
std::string code() {
  using U = std::remove_cv_t<T>;
  if constexpr (std::is_pointer_v<U>) {
    return "p" + code<std::remove_pointer_t<U>>();
  } else if constexpr (std::is_void_v<U>) {
    return "v";
  } else {
    const char* kind = std::is_floating_point_v<U> ? "f"
                       : !std::is_integral_v<U>    ? "s"
                       : std::is_signed_v<U>       ? "i" : "u";
    return kind + std::to_string(sizeof(U));
  }
}

template <auto kernel>
struct Entry;

template <typename... A, void (*kernel)(A...)>
struct Entry<kernel> {
  template <size_t... I>
  static void spread(void** values, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(values[I])...);
  }
  static void call(void** values) { spread(values, std::index_sequence_for<A...>{}); }
  static const char* signature() {
    static const std::string text = ((code<A>() + ",") + ... + std::string());
    return text.c_str();
  }
};

template <typename T>
T bits_to(u64 bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T>
u64 to_bits(T value) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "CUDA shuffles values of 4 or 8 bytes");
  u64 bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

inline void keep(float& value) {  // no contraction across an operation that is to be rounded
#if defined(__x86_64__)
  asm volatile("" : "+x"(value));
#else
  asm volatile("" : "+w"(value));
#endif
}

inline void keep(double& value) {
#if defined(__x86_64__)
  asm volatile("" : "+x"(value));
#else
  asm volatile("" : "+w"(value));
#endif
}

}  // namespace emulator

// ---- barriers and warps -------------------------------------------------------------------------

inline void __syncthreads() { emulator::barrier(0); }
inline int __syncthreads_count(int p) { return static_cast<int>(emulator::barrier(p != 0)); }
inline int __syncthreads_or(int p) { return emulator::barrier(p != 0) != 0; }
inline int __syncthreads_and(int p) { return emulator::barrier(p == 0) == 0; }
inline void __syncwarp(unsigned mask = ~0u) { emulator::warp(emulator::SYNC, mask, 0, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int own = static_cast<int>(emulator::lane());
  const int from = (own & ~(width - 1)) + (source & (width - 1));
  return emulator::bits_to<T>(
      emulator::warp(emulator::SHUFFLE, mask, emulator::to_bits(value), from));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {
  const int own = static_cast<int>(emulator::lane()), end = (own & ~(width - 1)) + width;
  const int from = (own ^ with) < end ? own ^ with : own;
  return emulator::bits_to<T>(
      emulator::warp(emulator::SHUFFLE, mask, emulator::to_bits(value), from));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int own = static_cast<int>(emulator::lane()), end = (own & ~(width - 1)) + width;
  const int from = own + static_cast<int>(delta) < end ? own + static_cast<int>(delta) : own;
  return emulator::bits_to<T>(
      emulator::warp(emulator::SHUFFLE, mask, emulator::to_bits(value), from));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int own = static_cast<int>(emulator::lane()), start = own & ~(width - 1);
  const int from = own - static_cast<int>(delta) >= start ? own - static_cast<int>(delta) : own;
  return emulator::bits_to<T>(
      emulator::warp(emulator::SHUFFLE, mask, emulator::to_bits(value), from));
}

inline unsigned __ballot_sync(unsigned mask, int p) {
  return static_cast<unsigned>(emulator::warp(emulator::BALLOT, mask, p != 0, 0));
}
inline int __any_sync(unsigned mask, int p) {
  return static_cast<int>(emulator::warp(emulator::ANY, mask, p != 0, 0));
}
inline int __all_sync(unsigned mask, int p) {
  return static_cast<int>(emulator::warp(emulator::ALL, mask, p != 0, 0));
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(
      emulator::warp(emulator::MATCH, mask, emulator::to_bits(value), 0));
}
#define EMULATED_REDUCTION(name, type, operation)                                          \
  inline type name(unsigned mask, type value) {                                            \
    return static_cast<type>(                                                              \
        emulator::warp(emulator::operation, mask, static_cast<unsigned>(value), 0));       \
  }
EMULATED_REDUCTION(__reduce_add_sync, unsigned, ADD)
EMULATED_REDUCTION(__reduce_add_sync, int, ADD)
EMULATED_REDUCTION(__reduce_min_sync, unsigned, LEAST)
EMULATED_REDUCTION(__reduce_min_sync, int, LEAST_SIGNED)
EMULATED_REDUCTION(__reduce_max_sync, unsigned, MOST)
EMULATED_REDUCTION(__reduce_max_sync, int, MOST_SIGNED)
EMULATED_REDUCTION(__reduce_and_sync, unsigned, AND)
EMULATED_REDUCTION(__reduce_or_sync, unsigned, OR)
EMULATED_REDUCTION(__reduce_xor_sync, unsigned, XOR)

// ---- atomics: threads take turns only where they wait -------------------------------------------

#define EMULATED_ATOMIC(name, type, update)                                                \
  inline type name(type* address, type value) {                                            \
    const type old = *address;                                                             \
    *address = update;                                                                     \
    return old;                                                                            \
  }                                                                                        \
  inline type name##_block(type* address, type value) { return name(address, value); }
#define EMULATED_INTEGER_ATOMICS(type)                                                     \
  EMULATED_ATOMIC(atomicAdd, type, static_cast<type>(old + value))                         \
  EMULATED_ATOMIC(atomicMax, type, old > value ? old : value)                              \
  EMULATED_ATOMIC(atomicMin, type, old < value ? old : value)                              \
  EMULATED_ATOMIC(atomicExch, type, value)                                                 \
  EMULATED_ATOMIC(atomicAnd, type, old & value)                                            \
  EMULATED_ATOMIC(atomicOr, type, old | value)                                             \
  EMULATED_ATOMIC(atomicXor, type, old ^ value)                                            \
  inline type atomicCAS(type* address, type expected, type value) {                        \
    const type old = *address;                                                             \
    if (old == expected) *address = value;                                                 \
    return old;                                                                            \
  }
EMULATED_INTEGER_ATOMICS(unsigned)
EMULATED_INTEGER_ATOMICS(unsigned long long)
#undef EMULATED_INTEGER_ATOMICS
EMULATED_ATOMIC(atomicAdd, int, static_cast<int>(static_cast<unsigned>(old) + value))
EMULATED_ATOMIC(atomicMax, int, old > value ? old : value)
EMULATED_ATOMIC(atomicMin, int, old < value ? old : value)
EMULATED_ATOMIC(atomicExch, int, value)
EMULATED_ATOMIC(atomicAnd, int, old & value)
EMULATED_ATOMIC(atomicOr, int, old | value)
EMULATED_ATOMIC(atomicSub, int, static_cast<int>(static_cast<unsigned>(old) - value))
EMULATED_ATOMIC(atomicSub, unsigned, old - value)
EMULATED_ATOMIC(atomicMax, long long, old > value ? old : value)
EMULATED_ATOMIC(atomicMin, long long, old < value ? old : value)
EMULATED_ATOMIC(atomicAdd, float, old + value)
EMULATED_ATOMIC(atomicAdd, double, old + value)
EMULATED_ATOMIC(atomicExch, float, value)
EMULATED_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1)
inline int atomicCAS(int* address, int expected, int value) {
  const int old = *address;
  if (old == expected) *address = value;
  return old;
}

// ---- bits, conversions, arithmetic ----------------------------------------------------------------

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; ++i) y |= (x >> i & 1u) << (31 - i);
  return y;
}
inline unsigned long long __brevll(unsigned long long x) {
  return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32 |
         __brev(static_cast<unsigned>(x >> 32));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
  return n % 32 ? high << n % 32 | low >> (32 - n % 32) : high;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) {
  return n % 32 ? low >> n % 32 | high << (32 - n % 32) : low;
}
template <typename T>
T __ldg(const T* address) { return *address; }
template <typename T>
T __ldcs(const T* address) { return *address; }
template <typename T>
T __ldcg(const T* address) { return *address; }
template <typename T>
void __stcs(T* address, T value) { *address = value; }
template <typename T>
void __stcg(T* address, T value) { *address = value; }

template <typename To, typename From>
To emulated_cast(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
inline int __float_as_int(float x) { return emulated_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return emulated_cast<unsigned>(x); }
inline float __int_as_float(int x) { return emulated_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return emulated_cast<float>(x); }
inline long long __double_as_longlong(double x) { return emulated_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return emulated_cast<double>(x); }

#define EMULATED_ROUNDED(type, prefix, name, expression)                                   \
  inline type prefix##name##_rn(type a, type b) {                                          \
    type result = expression;                                                              \
    emulator::keep(result);                                                                \
    return result;                                                                         \
  }
EMULATED_ROUNDED(float, __f, add, a + b)
EMULATED_ROUNDED(float, __f, sub, a - b)
EMULATED_ROUNDED(float, __f, mul, a* b)
EMULATED_ROUNDED(float, __f, div, a / b)
EMULATED_ROUNDED(double, __d, add, a + b)
EMULATED_ROUNDED(double, __d, sub, a - b)
EMULATED_ROUNDED(double, __d, mul, a* b)
EMULATED_ROUNDED(double, __d, div, a / b)
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline float __frcp_rn(float x) { return __fdiv_rn(1.0f, x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

// As PTX has it: a float beyond the integer's range gives the nearest integer; NaN gives 0, where
// 64 bits are involved only the highest bit.
template <typename To, typename From>
To emulated_integer(From x, From rounded) {
  if (std::isnan(x)) {
    const bool wide = sizeof(To) == 8 || sizeof(From) == 8;
    return wide ? static_cast<To>(1ull << (8 * sizeof(To) - 1)) : To(0);
  }
  const long double wide = rounded;
  if (wide <= static_cast<long double>(std::numeric_limits<To>::lowest())) {
    return std::numeric_limits<To>::lowest();
  }
  if (wide >= static_cast<long double>(std::numeric_limits<To>::max())) {
    return std::numeric_limits<To>::max();
  }
  return static_cast<To>(rounded);
}
#define EMULATED_CONVERSIONS(from, prefix, to, name)                                       \
  inline to prefix##2##name##_rn(from x) { return emulated_integer<to>(x, std::nearbyint(x)); } \
  inline to prefix##2##name##_rz(from x) { return emulated_integer<to>(x, std::trunc(x)); }     \
  inline to prefix##2##name##_rd(from x) { return emulated_integer<to>(x, std::floor(x)); }     \
  inline to prefix##2##name##_ru(from x) { return emulated_integer<to>(x, std::ceil(x)); }
EMULATED_CONVERSIONS(float, __float, int, int)
EMULATED_CONVERSIONS(float, __float, unsigned, uint)
EMULATED_CONVERSIONS(float, __float, long long, ll)
EMULATED_CONVERSIONS(float, __float, unsigned long long, ull)
EMULATED_CONVERSIONS(double, __double, int, int)
EMULATED_CONVERSIONS(double, __double, unsigned, uint)
EMULATED_CONVERSIONS(double, __double, long long, ll)
EMULATED_CONVERSIONS(double, __double, unsigned long long, ull)
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ll2float_rn(long long x) { return static_cast<float>(x); }
inline float __ull2float_rn(unsigned long long x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline double __int2double_rn(int x) { return x; }
inline double __uint2double_rn(unsigned x) { return x; }
inline double __ll2double_rn(long long x) { return static_cast<double>(x); }
inline double __ull2double_rn(unsigned long long x) { return static_cast<double>(x); }

#define EMULATED_EXTREMES(type)                                                            \
  inline type min(type a, type b) { return b < a ? b : a; }                                \
  inline type max(type a, type b) { return a < b ? b : a; }
EMULATED_EXTREMES(int)
EMULATED_EXTREMES(unsigned)
EMULATED_EXTREMES(long)
EMULATED_EXTREMES(unsigned long)
EMULATED_EXTREMES(long long)
EMULATED_EXTREMES(unsigned long long)
inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

using std::isfinite;
using std::isinf;
using std::isnan;

// Names of CUDA that a kernel of this project may not use: each hides a race or an approximation.
#define __activemask() static_assert(false, "name the lanes: __activemask() depends on timing")
