// Rows whose units lie a stride apart: a contiguous (B, N, S) is normalised over dim 1. A block takes a strip, a few
// neighbouring rows of one matrix, and reads it twice; the second read finds it in the cache.
#pragma once

#include <algorithm>

#include "cuda/base/affine.cuh"
#include "cuda/base/line_sums.cuh"

namespace normkernels::cuda {

inline constexpr int kStripThreads = 4, kUnitThreads = 64;  // a pack of rows per thread, by units
inline constexpr int kStripWarps = kStripThreads * kUnitThreads / 32, kUnroll = 4;

// The rows of one step of a block: kStripThreads packs of them, of matrix `image`.
template <typename T, bool PACKED>
struct Strip {
  int64_t image, first;
  Tile<T, PACKED> tile;

  __device__ Strip(int64_t step, int64_t S)
      : image(step / steps(S)), first(step % steps(S) * kStripThreads * kPack<T>), tile(S, first) {}
  static __host__ __device__ int64_t steps(int64_t S) {
    return (S + kStripThreads * kPack<T> - 1) / (kStripThreads * kPack<T>);
  }
  // where unit n of these rows starts; for a statistic take one unit
  __device__ int64_t at(int64_t n, int64_t N, int64_t S) const { return (image * N + n) * S + first; }
};

// values <- their sum over the units' threads, in one order
template <typename T>
__device__ void sum_units(Wide<T>& values, Wide<T> (*scratch)[kStripThreads]) {
  const int thread = threadIdx.y * kStripThreads + threadIdx.x;
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k)
    for (int step = kStripThreads; step < 32; step *= 2) values.v[k] += __shfl_xor_sync(0xffffffffu, values.v[k], step);
  if (thread % 32 < kStripThreads) scratch[thread / 32][threadIdx.x] = values;
  __syncthreads();
  values = scratch[0][threadIdx.x];
  for (int warp = 1; warp < kStripWarps; ++warp)
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) values.v[k] += scratch[warp][threadIdx.x].v[k];
}

// the sum over the rows of a block's step; all lanes get it
template <typename T>
__device__ acc_t<T> sum_strip(const Wide<T>& values) {
  acc_t<T> sum = 0;
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) sum += values.v[k];
  for (int step = 1; step < kStripThreads; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  return sum;
}

}  // namespace normkernels::cuda
