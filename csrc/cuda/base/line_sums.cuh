// dweight and dbias: every block keeps its own sums over rows, then one small kernel adds the blocks in a fixed order.
#pragma once

#include "cuda/base/launch.cuh"
#include "cuda/base/packs.cuh"

namespace normkernels::cuda {

inline constexpr int kSumUnits = 32, kSumThreads = 16;

template <typename T>
struct LineSums {
  const acc_t<T>* partial;  // (2, P, N): of du * xhat, then of du
  void *dweight, *dbias;    // (N,) or absent
  bool dweight_is_float, dbias_is_float;
  int64_t P, N;

  // of column n: dweight (which = 0) or dbias, if it is wanted
  __device__ void write(int64_t n, int which, acc_t<T> sum) const {
    void* out = which == 0 ? dweight : dbias;
    if (out == nullptr) return;
    if (which == 0 ? dweight_is_float : dbias_is_float)
      static_cast<float*>(out)[n] = sum;
    else
      static_cast<T*>(out)[n] = narrow<T>(sum);
  }
};

// out[n] = sum over p of partial[p, n]: kSumThreads interleaved sums per column, added in order.
template <typename T>
__global__ void __launch_bounds__(kSumUnits* kSumThreads) line_sums_kernel(const LineSums<T> p) {
  using A = acc_t<T>;
  __shared__ A sums[kSumThreads][kSumUnits];
  const int64_t n = int64_t(blockIdx.x) * kSumUnits + threadIdx.x;
  const A* partial = p.partial + blockIdx.y * p.P * p.N;
  A sum = 0;
  if (n < p.N) {
#pragma unroll 4
    for (int64_t i = threadIdx.y; i < p.P; i += kSumThreads) sum += partial[i * p.N + n];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || n >= p.N) return;
  for (int i = 1; i < kSumThreads; ++i) sum += sums[i][threadIdx.x];
  p.write(n, blockIdx.y, sum);
}

template <typename T>
bool wanted(const LineSums<T>& p) {
  return p.dweight != nullptr || p.dbias != nullptr;
}

template <typename T>
void line_sums(const LineSums<T>& p, const Device& device) {
  const dim3 grid(ceil_div<int64_t>(p.N, kSumUnits), p.dbias == nullptr ? 1 : 2);
  launch(line_sums_kernel<T>, grid, dim3(kSumUnits, kSumThreads), device, p);
}

}  // namespace normkernels::cuda
