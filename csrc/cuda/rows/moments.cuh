// What the forward and the backward of the row family share: a row per group of threads, or per group of blocks.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/base/affine.cuh"
#include "cuda/base/launch.cuh"
#include "cuda/base/tiles.cuh"

namespace normkernels::cuda {

inline constexpr int kResidentThreads = 512;  // most threads of a row that one block holds in registers
inline constexpr int kSegmentThreads = 256;   // a longer row: a block per segment of it

template <typename T, int C>
inline constexpr int64_t kSegment = kSegmentThreads * C * kPack<T>;

template <typename A>
struct Moments {
  A mean, squares;  // squares: the sum of (s - mean)^2, or of s^2 where nothing is centred
};

// Sum of s over the row's threads, then of (s - mean)^2: two passes over registers. Returns {mean, sum of squares}.
template <bool CENTER, typename T, bool PACKED, typename U, int C>
__device__ Moments<acc_t<T>> tile_moments(const Tile<T, PACKED>& tile, Values<U, kPack<T>> (&s)[C],
                                          acc_t<T> (*scratch)[1][32]) {
  using A = acc_t<T>;
  A mean = 0, sum[1] = {A(0)};
  if constexpr (CENTER) {
    const auto add = [&](int c, Values<U, kPack<T>>& pack) {
      const Wide<T> x = widen<T>(pack);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) sum[0] += x.v[k];
    };
    for_chunks<PACKED>(add, s);
    row_sum(sum, tile.threads, scratch[0]);
    mean = sum[0] / A(tile.columns > 0 ? tile.columns : 1);
    sum[0] = 0;
    keep_packed<T>(s);
  }
  const auto add_square = [&](int c, Values<U, kPack<T>>& pack) {
    const Wide<T> x = widen<T>(pack);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k)
      if (tile.holds(c, k)) sum[0] += (x.v[k] - mean) * (x.v[k] - mean);
  };
  for_chunks<PACKED>(add_square, s);
  row_sum(sum, tile.threads, scratch[1]);
  keep_packed<T>(s);
  return {mean, sum[0]};
}

// Moments of a row from those of its segments (Chan et al. 1979), in two passes over the segments.
template <bool CENTER, int64_t LENGTH, typename T, int THREADS = kSegmentThreads>
__device__ Moments<acc_t<T>> merge_moments(const Moments<acc_t<T>>* parts, int segments, int64_t N,
                                           acc_t<T> (*scratch)[1][32]) {
  using A = acc_t<T>;
  const auto count = [&](int i) {
    const int64_t left = N - i * LENGTH;
    return A(left < LENGTH ? left : LENGTH);
  };
  A mean = 0, sum[1] = {A(0)};
  if constexpr (CENTER) {
    for (int i = threadIdx.x; i < segments; i += THREADS) sum[0] += parts[i].mean * (count(i) / A(N));
    row_sum(sum, THREADS, scratch[0]);
    mean = sum[0];
    sum[0] = 0;
  }
  for (int i = threadIdx.x; i < segments; i += THREADS)
    sum[0] += parts[i].squares + count(i) * (parts[i].mean - mean) * (parts[i].mean - mean);
  row_sum(sum, THREADS, scratch[1]);
  return {mean, sum[0]};
}

// FINISH, what follows weight and bias in a kernel: nothing, an activation, or a gate's.
inline constexpr int kPlain = 0, kActivated = 1, kGated = 2;

// EACH: there are several samples, and blockIdx.y says which; where its rows, its weight and its bias begin. Else none
// takes a register.
template <bool EACH>
struct SampleRows {
  static constexpr int64_t first = 0, shift = 0;
  __device__ SampleRows(int64_t, int64_t) {}
};
template <>
struct SampleRows<true> {
  int64_t first, shift;
  __device__ SampleRows(int64_t M, int64_t N) : first(blockIdx.y * M), shift(blockIdx.y * N) {}
};

// ---- host ----

inline constexpr int64_t kMostAside = 65535;  // blocks of a grid along y

template <typename T>
T* advance(T* pointer, int64_t values) {
  return pointer == nullptr ? nullptr : pointer + values;
}

// Weight and bias from that many values on
template <typename T>
Affine<T> advance(Affine<T> affine, int64_t values) {
  for (Parameter* p : {&affine.weight, &affine.bias})
    p->data = advance(static_cast<const char*>(p->data), values * int64_t(p->is_float ? sizeof(float) : sizeof(T)));
  return affine;
}

// f(first, count, workspace) for `most` samples at a time; the next ones take the rooms of those before.
template <typename Workspace, typename F>
void each_samples(int64_t samples, int64_t most, Workspace workspace, F f) {
  std::vector<decltype(workspace(0))> rooms;
  for (int64_t first = 0; first < samples; first += most) {
    size_t next = 0;
    f(first, std::min(most, samples - first), [&](int64_t n) {
      if (next == rooms.size()) rooms.push_back(workspace(n));
      return rooms[next++];
    });
  }
}

// Threads of a row, rows of a block: part of a warp each while that holds the row, then whole warps and one row.
inline dim3 row_block(int64_t packs, int64_t chunks, int block_threads) {
  const int64_t needed = ceil_div(packs, chunks);
  if (needed > 32) return dim3(ceil_div<int64_t>(needed, 32) * 32);
  int threads = 1;
  while (threads < needed) threads *= 2;
  return dim3(threads, block_threads / threads);
}

// Rows whose `tensors` inputs stay in half of the L2 cache between their first and their second read.
template <typename T>
int64_t wave_rows(int64_t M, int64_t N, int tensors, const Device& device) {
  const int64_t most = device.l2_bytes / 2 / (N * tensors * int64_t(sizeof(T)));
  return std::clamp<int64_t>(most, 1, M);
}

}  // namespace normkernels::cuda
