// Of the block that runs, on the CPU.
#pragma once

#include <cuda_runtime.h>

namespace normkernels::cuda {

inline uint4* dynamic_memory() { return device::dynamic.data(); }

}  // namespace normkernels::cuda
