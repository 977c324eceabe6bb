// Shared memory of a thread's own, which it needs no barrier to read: a part of what the launch gives its block.
#pragma once

#include "cuda/base/dynamic_memory.cuh"

namespace normkernels::cuda {

inline constexpr int kBeside = 32;  // from one of a thread's quads, 16 bytes, to its next: neighbours' lie side by side

// The first of EACH quads, beside `before` of every thread that are something else.
template <int EACH>
__device__ uint4* own_memory(int before) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  return dynamic_memory() + before * threads + thread / kBeside * kBeside * EACH + thread % kBeside;
}

}  // namespace normkernels::cuda
