// Normalisation over dim 1 of a contiguous (B, N, S): the columns of B matrices. A block takes a few neighbouring
// columns
// ("pixels") of one matrix and reads them twice; the second read finds them in the cache.
#pragma once

#include <algorithm>

#include "cuda/base/sums.cuh"

namespace normkernels::cuda {

inline constexpr int kColumnThreads = 4, kRowThreads = 64;  // a pack of pixels per thread, by channels
inline constexpr int kWarps = kColumnThreads * kRowThreads / 32, kUnroll = 4;

// The pixels of one step of a block: kColumnThreads packs of columns of matrix `image`.
template <typename T, bool PACKED>
struct Pixels {
  int64_t image, first;
  Tile<T, PACKED> tile;

  __device__ Pixels(int64_t step, int64_t S)
      : image(step / steps(S)), first(step % steps(S) * kColumnThreads * kPack<T>), tile(S, first) {}
  static __host__ __device__ int64_t steps(int64_t S) {
    return (S + kColumnThreads * kPack<T> - 1) / (kColumnThreads * kPack<T>);
  }
  // where channel n of these pixels starts; for a statistic take one channel
  __device__ int64_t at(int64_t n, int64_t N, int64_t S) const { return (image * N + n) * S + first; }
};

// values <- their sum over the channels' threads, in one order
template <typename T>
__device__ void sum_channels(Wide<T>& values, Wide<T> (*scratch)[kColumnThreads]) {
  const int thread = threadIdx.y * kColumnThreads + threadIdx.x;
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k)
    for (int step = kColumnThreads; step < 32; step *= 2)
      values.v[k] += __shfl_xor_sync(0xffffffffu, values.v[k], step);
  if (thread % 32 < kColumnThreads) scratch[thread / 32][threadIdx.x] = values;
  __syncthreads();
  values = scratch[0][threadIdx.x];
  for (int warp = 1; warp < kWarps; ++warp)
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) values.v[k] += scratch[warp][threadIdx.x].v[k];
}

// sum over the pixels of a block's step; all lanes get it
template <typename T>
__device__ acc_t<T> sum_pixels(const Wide<T>& values) {
  acc_t<T> sum = 0;
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) sum += values.v[k];
  for (int step = 1; step < kColumnThreads; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  return sum;
}

// the parameter of channel n
template <typename T>
__device__ acc_t<T> load_channel(Parameter p, int64_t n, acc_t<T> offset, acc_t<T> absent) {
  if (p.data == nullptr) return absent;
  if (p.is_float) return static_cast<const float*>(p.data)[n] + offset;
  return widen(static_cast<const T*>(p.data)[n]) + offset;
}

}  // namespace normkernels::cuda
