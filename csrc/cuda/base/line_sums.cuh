// dweight and dbias: every block keeps its own sums over rows, then one small kernel adds the blocks in a fixed order.
#pragma once

#include "cuda/base/launch.cuh"
#include "cuda/base/packs.cuh"

namespace normkernels::cuda {

inline constexpr int kSumThreads = 256, kSumAhead = 8;  // of a block; loads of a thread at once
inline constexpr int kSumUnits = 8;                     // columns of a block at least: 32 bytes side by side

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

// out[n] = sum over p of partial[p, n]: blockDim.y interleaved sums per column, each of kSumAhead values at a time,
// added in order.
template <typename T>
__global__ void __launch_bounds__(kSumThreads) line_sums_kernel(const LineSums<T> p) {
  using A = acc_t<T>;
  __shared__ A sums[kSumThreads];
  const int units = blockDim.x, apart = units < 32 ? 32 : units;  // lanes to a sum of each column
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const A* partial = p.partial + blockIdx.y * p.P * p.N;
  A sum = 0;
  for (int64_t first = threadIdx.y; first < p.P; first += blockDim.y * kSumAhead) {
    A values[kSumAhead];
#pragma unroll
    for (int k = 0; k < kSumAhead; ++k) {
      const int64_t i = first + k * blockDim.y;
      values[k] = i < p.P && n < p.N ? partial[i * p.N + n] : A(0);
    }
#pragma unroll
    for (int k = 0; k < kSumAhead; ++k) sum += values[k];
  }
  for (int step = units; step < 32; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  const int thread = threadIdx.y * units + threadIdx.x;
  if (thread % apart < units) sums[thread] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || n >= p.N) return;
#pragma unroll 4
  for (int i = threadIdx.x + apart; i < kSumThreads; i += apart) sum += sums[i];
  p.write(n, blockIdx.y, sum);
}

template <typename T>
bool wanted(const LineSums<T>& p) {
  return p.dweight != nullptr || p.dbias != nullptr;
}

// As few threads to a column as have all its loads under way at once.
template <typename T>
void line_sums(const LineSums<T>& p, const Device& device) {
  unsigned units = kSumThreads;
  while (units > kSumUnits && p.P > kSumThreads / units * kSumAhead) units /= 2;
  const dim3 grid(ceil_div<int64_t>(p.N, units), p.dbias == nullptr ? 1 : 2);
  launch(line_sums_kernel<T>, grid, dim3(units, kSumThreads / units), device, p);
}

}  // namespace normkernels::cuda
