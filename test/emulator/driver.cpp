// A CUDA driver (libcuda.so.1) without a GPU: the host's memory, kernels of the emulator.
//
// NVIDIA's Python bindings load it as the real one, so all that stands between a kernel and Python
// is tested on a CPU: every argument passed, captures and graphs, who frees what, which thread has
// a context. Work runs at once, one piece after another; launch shapes and the rules of captures
// are checked. A module is a shared library made by emulate.py.
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace {

enum Result {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_IMAGE = 200,
  INVALID_HANDLE = 400, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901, CAPTURE_UNJOINED = 904
};
constexpr size_t TOTAL = 8ull << 30, GUARD = 256;

struct Copy {  // CUDA_MEMCPY3D
  size_t source_x, source_y, source_z, source_level;
  int source_kind;
  const void* source_host;
  unsigned long long source_device;
  void *source_array, *reserved0;
  size_t source_pitch, source_height, target_x, target_y, target_z, target_level;
  int target_kind;
  void* target_host;
  unsigned long long target_device;
  void *target_array, *reserved1;
  size_t target_pitch, target_height, width, height, depth;
};

struct Node {
  int kind;  // 0 kernel, 1 copy, 2 fill
  Copy copy;
  std::function<int()> run;
};

struct Graph {
  std::vector<std::shared_ptr<Node>> nodes;
};

struct Capture {
  Graph* graph = new Graph;
  bool broken = false;
  std::set<void*> unjoined;
};

struct Stream {
  Capture* capture = nullptr;
};

struct Event {
  Capture* capture = nullptr;
  Stream* stream = nullptr;
  long tick = -1;
};

struct Function {
  const char* (*run)(void**, const unsigned*, const unsigned*, unsigned, unsigned long long);
  std::vector<unsigned> sizes;
  std::string name;
  int most_shared = 48 << 10;
};

std::recursive_mutex lock;
thread_local void* context = nullptr;
std::set<void*> live;
std::set<Stream*> streams;
std::map<uintptr_t, size_t> device_memory, host_memory;
size_t used = 0;
int sticky = SUCCESS;
long ticks = 0;
Stream* origin = nullptr;  // of the one capture that there is

#define ENTER                                            \
  std::lock_guard<std::recursive_mutex> guard_(lock);    \
  if (sticky) return sticky;                             \
  if (context == nullptr) return INVALID_CONTEXT
#define KNOWN(handle) if (live.count((void*)(handle)) == 0) return INVALID_HANDLE

template <typename T>
T* made(T* thing) {
  live.insert(thing);
  return thing;
}

int invalidate() {
  if (origin == nullptr) return SUCCESS;
  origin->capture->broken = true;
  return CAPTURE_UNSUPPORTED;
}

// Runs work now, or adds it to the capture that its stream takes part in.
int submit(void* stream, Node node) {
  KNOWN(stream);
  Capture* capture = static_cast<Stream*>(stream)->capture;
  if (capture == nullptr) return node.run();
  if (stream != origin) capture->unjoined.insert(stream);
  capture->graph->nodes.push_back(std::make_shared<Node>(std::move(node)));
  return SUCCESS;
}

bool within(const std::map<uintptr_t, size_t>& memory, uintptr_t address, size_t size) {
  auto after = memory.upper_bound(address);
  if (after == memory.begin()) return false;
  --after;
  return address + size <= after->first + after->second;
}

int run_copy(const Copy& copy) {
  const void* source = copy.source_kind == 1 ? copy.source_host : (void*)copy.source_device;
  void* target = copy.target_kind == 1 ? copy.target_host : (void*)copy.target_device;
  if ((copy.source_kind == 2 && !within(device_memory, (uintptr_t)source, copy.width)) ||
      (copy.target_kind == 2 && !within(device_memory, (uintptr_t)target, copy.width))) {
    return INVALID_VALUE;
  }
  std::memcpy(target, source, copy.width);
  return SUCCESS;
}

int submit_copy(void* stream, int target_kind, void* target, int source_kind, const void* source,
                size_t size) {
  if (size == 0) return INVALID_VALUE;
  Node node{1, {}, {}};
  node.copy.source_kind = source_kind;
  node.copy.target_kind = target_kind;
  if (source_kind == 1) node.copy.source_host = source;
  else node.copy.source_device = (unsigned long long)source;
  if (target_kind == 1) node.copy.target_host = target;
  else node.copy.target_device = (unsigned long long)target;
  node.copy.width = size;
  node.copy.height = node.copy.depth = 1;
  node.run = [copy = node.copy] { return run_copy(copy); };
  return submit(stream, node);
}

const char* name_of(int code) {
  switch (code) {
    case INVALID_VALUE: return "CUDA_ERROR_INVALID_VALUE";
    case OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
    case ILLEGAL_ADDRESS: return "CUDA_ERROR_ILLEGAL_ADDRESS";
    default: return "another error";
  }
}

int allocate(size_t size, std::map<uintptr_t, size_t>& memory, void** out) {
  if (size == 0) return INVALID_VALUE;
  if (origin != nullptr) return invalidate();
  if (&memory == &device_memory && used + size > TOTAL) return OUT_OF_MEMORY;
  char* raw = static_cast<char*>(std::aligned_alloc(256, (size + 2 * GUARD + 255) / 256 * 256));
  std::memset(raw, 0xff, size + 2 * GUARD);
  memory[(uintptr_t)raw + GUARD] = size;
  if (&memory == &device_memory) used += size;
  *out = raw + GUARD;
  return SUCCESS;
}

int release(uintptr_t address, std::map<uintptr_t, size_t>& memory) {
  auto found = memory.find(address);
  if (found == memory.end()) return INVALID_VALUE;
  const unsigned char* raw = (unsigned char*)address - GUARD;
  for (size_t i = 0; i < GUARD; ++i) {
    if (raw[i] != 0xff || raw[GUARD + found->second + i] != 0xff) {
      std::fprintf(stderr, "emulated driver: written outside %zu bytes\n", found->second);
      sticky = ILLEGAL_ADDRESS;
      break;
    }
  }
  if (&memory == &device_memory) used -= found->second;
  std::free((void*)raw);
  memory.erase(found);
  return sticky;
}

template <typename T>
int destroy(void* handle) {
  ENTER;
  if (live.erase(handle) == 0) return INVALID_HANDLE;
  delete static_cast<T*>(handle);
  return SUCCESS;
}

}  // namespace

extern "C" {

int cuInit(unsigned flags) { return flags == 0 ? SUCCESS : INVALID_VALUE; }
int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int* device, int index) { return *device = index, SUCCESS; }
int cuDeviceGetName(char* name, int size, int) {
  return std::snprintf(name, size, "emulated GPU"), SUCCESS;
}
int cuDeviceTotalMem(size_t* size, int) { return *size = TOTAL, SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  static const std::map<int, int> values = {{75, 8}, {76, 7}, {18, 0}, {97, 163 << 10}};
  auto found = values.find(attribute);
  if (found == values.end()) return INVALID_VALUE;
  return *value = found->second, SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** made, int) { return *made = &live, SUCCESS; }
int cuCtxSetCurrent(void* chosen) { return context = chosen, SUCCESS; }
int cuCtxGetCurrent(void** now) { return *now = context, SUCCESS; }
int cuGetErrorName(int code, const char** text) { return *text = name_of(code), SUCCESS; }
int cuGetErrorString(int code, const char** text) { return *text = name_of(code), SUCCESS; }

int cuMemGetInfo(size_t* free, size_t* total) {
  ENTER;
  *free = TOTAL - used;
  *total = TOTAL;
  return SUCCESS;
}
int cuMemAlloc(unsigned long long* address, size_t size) {
  ENTER;
  return allocate(size, device_memory, (void**)address);
}
int cuMemHostAlloc(void** address, size_t size, unsigned flags) {
  ENTER;
  return flags == 3 ? allocate(size, host_memory, address) : INVALID_VALUE;
}
int cuMemFree(unsigned long long address) {
  ENTER;
  return release(address, device_memory);
}
int cuMemFreeHost(void* address) {
  ENTER;
  return release((uintptr_t)address, host_memory);
}
int cuMemcpyHtoDAsync(unsigned long long to, const void* from, size_t size, void* stream) {
  ENTER;
  return submit_copy(stream, 2, (void*)to, 1, from, size);
}
int cuMemcpyDtoHAsync(void* to, unsigned long long from, size_t size, void* stream) {
  ENTER;
  return submit_copy(stream, 1, to, 2, (void*)from, size);
}
int cuMemcpyDtoDAsync(unsigned long long to, unsigned long long from, size_t size, void* stream) {
  ENTER;
  return submit_copy(stream, 2, (void*)to, 2, (void*)from, size);
}
int cuMemsetD8Async(unsigned long long to, unsigned char value, size_t size, void* stream) {
  ENTER;
  return submit(stream, {2, {}, [=]() -> int {
    if (!within(device_memory, to, size)) return INVALID_VALUE;
    std::memset((void*)to, value, size);
    return SUCCESS;
  }});
}

int cuStreamCreate(void** stream, unsigned) {
  ENTER;
  *stream = made(new Stream);
  streams.insert(static_cast<Stream*>(*stream));
  return SUCCESS;
}
int cuStreamDestroy(void* stream) {
  streams.erase(static_cast<Stream*>(stream));
  return destroy<Stream>(stream);
}
int cuStreamSynchronize(void* stream) {
  ENTER;
  KNOWN(stream);
  return static_cast<Stream*>(stream)->capture ? invalidate() : SUCCESS;
}
int cuEventCreate(void** event, unsigned) {
  ENTER;
  *event = made(new Event);
  return SUCCESS;
}
int cuEventDestroy(void* event) { return destroy<Event>(event); }
int cuEventRecord(void* event, void* stream) {
  ENTER;
  KNOWN(event);
  KNOWN(stream);
  auto* mark = static_cast<Event*>(event);
  mark->stream = static_cast<Stream*>(stream);
  mark->capture = mark->stream->capture;
  mark->tick = ++ticks;
  return SUCCESS;
}
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  ENTER;
  KNOWN(event);
  KNOWN(stream);
  auto* mark = static_cast<Event*>(event);
  auto* waits = static_cast<Stream*>(stream);
  if (mark->capture == nullptr) return SUCCESS;
  if (origin == nullptr || mark->capture != origin->capture) return INVALID_HANDLE;
  if (waits->capture == nullptr) {
    waits->capture = mark->capture;
    mark->capture->unjoined.insert(waits);
  } else {
    mark->capture->unjoined.erase(mark->stream);
  }
  return SUCCESS;
}
int cuEventSynchronize(void* event) {
  ENTER;
  KNOWN(event);
  return static_cast<Event*>(event)->capture && origin ? invalidate() : SUCCESS;
}
int cuEventQuery(void* event) { return cuEventSynchronize(event); }
int cuEventElapsedTime(float* ms, void* start, void* end) {
  ENTER;
  KNOWN(start);
  KNOWN(end);
  *ms = static_cast<Event*>(end)->tick - static_cast<Event*>(start)->tick;
  return SUCCESS;
}

int cuStreamBeginCapture(void* stream, int mode) {
  ENTER;
  KNOWN(stream);
  if (origin != nullptr || mode != 1) return INVALID_VALUE;
  origin = static_cast<Stream*>(stream);
  origin->capture = new Capture;
  return SUCCESS;
}
int cuStreamEndCapture(void* stream, void** graph) {
  ENTER;
  if (stream != origin) return INVALID_VALUE;
  Capture* capture = origin->capture;
  for (Stream* other : streams) {
    if (other->capture == capture) other->capture = nullptr;
  }
  origin = nullptr;
  const int result = capture->broken               ? CAPTURE_INVALIDATED
                     : !capture->unjoined.empty() ? CAPTURE_UNJOINED : SUCCESS;
  *graph = result ? nullptr : made(capture->graph);
  return result;  // the capture stays: events may still name it
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  ENTER;
  KNOWN(graph);
  *executable = made(new Graph(*static_cast<Graph*>(graph)));
  return SUCCESS;
}
int cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
  ENTER;
  KNOWN(graph);
  const auto& all = static_cast<Graph*>(graph)->nodes;
  for (size_t i = 0; nodes != nullptr && i < *count && i < all.size(); ++i) nodes[i] = all[i].get();
  *count = all.size();
  return SUCCESS;
}
int cuGraphNodeGetType(void* node, int* kind) {
  return *kind = static_cast<Node*>(node)->kind, SUCCESS;
}
int cuGraphMemcpyNodeGetParams(void* node, Copy* copy) {
  return *copy = static_cast<Node*>(node)->copy, SUCCESS;
}
int cuGraphExecMemcpyNodeSetParams(void* executable, void* node, const Copy* copy, void* given) {
  ENTER;
  KNOWN(executable);
  if (given != context || copy->width == 0) return INVALID_VALUE;
  for (auto& own : static_cast<Graph*>(executable)->nodes) {
    if (own.get() != node) continue;
    own = std::make_shared<Node>(*own);
    own->run = [copy = *copy] { return run_copy(copy); };
    return SUCCESS;
  }
  // changed before: found by its operands, which may not change
  for (auto& own : static_cast<Graph*>(executable)->nodes) {
    const Copy& old = own->copy;
    if (own->kind == 1 && old.target_device == copy->target_device &&
        old.source_host == copy->source_host) {
      own->run = [copy = *copy] { return run_copy(copy); };
      return SUCCESS;
    }
  }
  return INVALID_VALUE;
}
int cuGraphUpload(void* executable, void* stream) {
  ENTER;
  KNOWN(executable);
  KNOWN(stream);
  return SUCCESS;
}
int cuGraphLaunch(void* executable, void* stream) {
  ENTER;
  KNOWN(executable);
  KNOWN(stream);
  for (auto& node : static_cast<Graph*>(executable)->nodes) {
    if (const int result = node->run()) return result;
  }
  return SUCCESS;
}
int cuGraphDestroy(void* graph) { return destroy<Graph>(graph); }
int cuGraphExecDestroy(void* executable) { return destroy<Graph>(executable); }

int cuModuleLoadData(void** module, const void* image) {
  ENTER;
  const auto* header = static_cast<const Elf64_Ehdr*>(image);
  if (std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return INVALID_IMAGE;
  char path[] = "/tmp/emulated-module-XXXXXX";
  const int file = mkstemp(path);
  const size_t size = header->e_shoff + size_t(header->e_shentsize) * header->e_shnum;
  const bool written = file >= 0 && write(file, image, size) == ssize_t(size);
  if (file >= 0) close(file);
  *module = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
  unlink(path);
  if (*module == nullptr) std::fprintf(stderr, "emulated driver: %s\n", dlerror());
  return *module ? SUCCESS : INVALID_IMAGE;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  ENTER;
  const std::string text = name;
  auto found = std::make_unique<Function>();
  found->name = text;
  *(void**)&found->run = dlsym(module, ("emulated_" + text).c_str());
  auto signature = (const char* (*)())dlsym(module, ("emulated_signature_" + text).c_str());
  if (found->run == nullptr || signature == nullptr) return NOT_FOUND;
  for (const char* at = signature(); *at != '\0'; at = std::strchr(at, ',') + 1) {
    found->sizes.push_back(*at == 'p' ? 8 : std::atoi(at + 1));
  }
  *function = found.release();
  return SUCCESS;
}
int cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* size) {
  const auto& sizes = static_cast<Function*>(function)->sizes;
  if (index >= sizes.size()) return INVALID_VALUE;
  *offset = 0;
  *size = sizes[index];
  return SUCCESS;
}
int cuFuncGetAttribute(int* value, int attribute, void*) {
  return attribute == 1 ? (*value = 1024, SUCCESS) : INVALID_VALUE;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  if (attribute != 8 || value > 163 << 10) return INVALID_VALUE;
  return static_cast<Function*>(function)->most_shared = value, SUCCESS;
}
int cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void* stream, void** parameters, void** extra) {
  ENTER;
  auto* function = static_cast<Function*>(handle);
  const uint64_t threads = uint64_t(bx) * by * bz;
  if (gx == 0 || gy == 0 || gz == 0 || threads == 0 || threads > 1024 || gy > 65535 ||
      gz > 65535 || int(shared) > function->most_shared || extra != nullptr) {
    return INVALID_VALUE;
  }
  auto values = std::make_shared<std::vector<std::vector<char>>>();
  for (size_t i = 0; i < function->sizes.size(); ++i) {
    const char* from = static_cast<const char*>(parameters[i]);
    values->emplace_back(from, from + function->sizes[i]);
  }
  return submit(stream, {0, {}, [=]() -> int {
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    std::vector<void*> pointers;
    for (auto& value : *values) pointers.push_back(value.data());
    const char* error = function->run(pointers.data(), grid, block, shared, ++ticks);
    if (*error == '\0') return SUCCESS;
    std::fprintf(stderr, "emulated driver: %s: %s\n", function->name.c_str(), error);
    return sticky = ILLEGAL_ADDRESS;
  }});
}

int cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int* status) {
  Dl_info own;
  dladdr((void*)&cuInit, &own);
  void* library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  *function = dlsym(library, name);
  if (status != nullptr) *status = *function ? 0 : 1;
  return *function ? SUCCESS : NOT_FOUND;
}
}
