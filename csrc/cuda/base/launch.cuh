// Kernels as the host launches them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace normkernels::cuda {

struct Device {
  int multiprocessors, l2_bytes;
  cudaStream_t stream;
};

template <typename Params>
void launch(void (*kernel)(Params), dim3 grid, dim3 block, const Device& device, Params params) {
  void* arguments[] = {&params};
  cudaLaunchKernel(kernel, grid, block, arguments, 0, device.stream);
}

// How many blocks of a persistent kernel fill the device.
template <typename Params>
int resident_blocks(void (*kernel)(Params), int threads, const Device& device) {
  int blocks = 1;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0);
  return device.multiprocessors * (blocks > 1 ? blocks : 1);
}

template <typename I>
constexpr I ceil_div(I a, I b) {
  return (a + b - 1) / b;
}

}  // namespace normkernels::cuda
