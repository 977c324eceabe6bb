// Kernels that are given shared memory by their launch, beside what they declare.
#pragma once

#include "cuda/base/launch.cuh"

namespace normkernels::cuda {

// Every block may have 48 KB; of that, what is left beside the arrays that kernels declare.
inline constexpr int kPlainShared = 32 * 1024;

// How many blocks of a persistent kernel with so many bytes each fill the device; it may be launched with as many then.
template <typename Params>
int resident_blocks(void (*kernel)(Params), int threads, int shared, const Device& device) {
  if (shared > kPlainShared) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  int blocks = 1;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared);
  return device.multiprocessors * (blocks > 1 ? blocks : 1);
}

template <typename Params>
void launch(void (*kernel)(Params), dim3 grid, dim3 block, int shared, const Device& device, Params params) {
  void* arguments[] = {&params};
  cudaLaunchKernel(kernel, grid, block, arguments, shared, device.stream);
}

}  // namespace normkernels::cuda
