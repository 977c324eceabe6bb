// CUDA as far as csrc/cuda/*.cuh use it, on the CPU, so that wrong indices, missing barriers and wrong sums show
// without a GPU. Blocks run one after another, the threads of a block as fibers; shared memory is static.
#pragma once

#include <math.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace device {

// A CUDA thread: runs until it waits for others, then the next one runs, so a missing barrier reads stale values.
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done = false;
  const char* waits = nullptr;  // what for
  double given[2];              // to a shuffle, by turns
  static constexpr size_t kStack = 1 << 16;
};

inline std::vector<Fiber> fibers;
inline std::vector<uint4> dynamic;  // what the launch gives a block
inline unsigned current, buffer;
inline ucontext_t scheduler;
inline std::function<void()> kernel;

inline const char kBarrier[] = "barrier", kShuffle[] = "shuffle";

inline void wait(const char* what) {
  Fiber& fiber = fibers[current];
  fiber.waits = what;
  swapcontext(&fiber.context, &scheduler);
}

inline void start() {
  kernel();
  fibers[current].done = true;
}

// Runs a block. All its threads that have not ended must wait for the same thing, as barriers and full masks demand.
inline void run_block() {
  for (Fiber& fiber : fibers) {
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = Fiber::kStack;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, start, 0);
  }
  for (bool alive = true; alive; buffer ^= 1) {
    alive = false;
    const char* waits = nullptr;
    for (unsigned i = 0; i < fibers.size(); ++i) {
      current = blockIdx.x % 2 ? fibers.size() - 1 - i : i;  // in both orders
      if (fibers[current].done) continue;
      threadIdx = dim3(current % blockDim.x, current / blockDim.x);
      swapcontext(&scheduler, &fibers[current].context);
      if (fibers[current].done) continue;
      if (alive && waits != fibers[current].waits) abort();
      waits = fibers[current].waits;
      alive = true;
    }
  }
}

}  // namespace device

inline void __syncthreads() { device::wait(device::kBarrier); }

template <class A>
A __shfl_xor_sync(unsigned, A value, int step) {
  const unsigned buffer = device::buffer, partner = device::current ^ step;
  device::fibers[device::current].given[buffer] = value;
  device::wait(device::kShuffle);
  return static_cast<A>(device::fibers[partner].given[buffer]);
}

inline float __fdividef(float a, float b) { return a / b; }
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float rsqrt(float v) { return 1 / sqrtf(v); }
inline double rsqrt(double v) { return 1 / sqrt(v); }

using cudaStream_t = void*;

template <class Kernel>
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  return *blocks = 1, 0;
}

enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class Kernel>
int cudaFuncSetAttribute(Kernel, int, int) {
  return 0;
}

// Clusters are not there: `static` shared memory is one block's.
enum { cudaSuccess };
struct cudaFuncAttributes {
  int ptxVersion;
};
template <class Kernel>
int cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return cudaSuccess;
}
inline int cudaGetDevice(int* index) { return *index = 0; }
inline int cudaGetLastError() { return cudaSuccess; }
enum { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  int id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
template <class Kernel>
int cudaOccupancyMaxActiveClusters(int*, Kernel, const cudaLaunchConfig_t*) {
  abort();
}
inline int cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) { abort(); }

template <class Params>
int cudaLaunchKernel(void (*kernel)(Params), dim3 grid, dim3 block, void** arguments, size_t bytes, cudaStream_t) {
  const unsigned count = block.x * block.y;
  if (count % 32 != 0 || count > 1024 || grid.y > 65535) abort();
  const Params& params = *static_cast<const Params*>(arguments[0]);
  device::kernel = [&] { kernel(params); };
  device::fibers.resize(count);
  device::dynamic.assign(bytes / sizeof(uint4), {});
  blockDim = block, gridDim = grid;
  for (unsigned b = 0; b < grid.x * grid.y; ++b) {
    blockIdx = dim3(b % grid.x, b / grid.x);
    device::run_block();
  }
  return 0;
}
