// The shared memory that a launch gives a block beside what its kernel declares; at 16 bytes.
#pragma once

#include <cuda_runtime.h>

namespace normkernels::cuda {

__device__ inline uint4* dynamic_memory() {
  extern __shared__ uint4 memory[];
  return memory;
}

}  // namespace normkernels::cuda
