// The part of a row that a thread holds, and reductions over the threads of a row.
#pragma once

#include "cuda/base/packs.cuh"

namespace normkernels::cuda {

// Runs body(c, chunk of each array) for every chunk. A short body is unrolled; a long one (activations, scalar
// accesses) is one loop body for all chunks, and the arrays rotate so that the chunk's registers are the first.
template <bool UNROLL, int C, typename Body, typename... E>
__device__ void for_chunks(Body body, E (&... arrays)[C]) {
  if constexpr (UNROLL) {
#pragma unroll
    for (int c = 0; c < C; ++c) body(c, arrays[c]...);
  } else {
#pragma unroll 1
    for (int c = 0; c < C; ++c) {
      body(c, arrays[0]...);
      const auto rotate = [](auto& array) {
        const auto first = array[0];
#pragma unroll
        for (int i = 0; i + 1 < C; ++i) array[i] = array[i + 1];
        array[C - 1] = first;
      };
      (rotate(arrays), ...);
    }
  }
}

// The part of a row that a group of threads holds: chunk c is one pack per thread. PACKED: every pack is aligned,
// 128-bit accesses. Else scalar ones, and where N is not a whole number of packs neighbouring threads own neighbouring
// columns.
template <typename T, bool PACKED>
struct Tile {
  static constexpr int V = kPack<T>;
  int columns;  // how many exist
  int thread, threads;
  int between, within;  // columns from a thread to the next, and from a value to the next

  // This thread's part of a row of N columns: at most `most` of them, from `first` on.
  __device__ Tile(int64_t N, int64_t first, int64_t most = INT32_MAX) : Tile(N, first, most, threadIdx.x, blockDim.x) {}
  __device__ Tile(int64_t N, int64_t first, int64_t most, int thread, int threads)
      : columns(N - first < most ? N - first : most),
        thread(thread),
        threads(threads),
        between(PACKED || N % V == 0 ? V : 1),
        within(PACKED || N % V == 0 ? 1 : threads) {}

  __device__ int column(int c, int k) const {
    if constexpr (PACKED) return (c * threads + thread) * V + k;
    return c * threads * V + thread * between + k * within;
  }
  __device__ bool holds(int c, int k) const { return column(c, PACKED ? 0 : k) < columns; }

  template <typename U>
  __device__ Values<U, V> load(const U* row, int c) const {
    Values<U, V> pack;
    if constexpr (PACKED) {
      uint4* quads = reinterpret_cast<uint4*>(&pack);
#pragma unroll
      for (int q = 0; q < int(sizeof(pack) / 16); ++q) {
        quads[q] = make_uint4(0, 0, 0, 0);
        if (holds(c, 0)) quads[q] = reinterpret_cast<const uint4*>(row + column(c, 0))[q];
      }
      return pack;
    }
    return Values<U, V>::of([&](int k) { return holds(c, k) ? row[column(c, k)] : narrow<U>(0); });
  }

  template <typename U>
  __device__ void store(U* row, int c, const Values<U, V>& pack) const {
    if constexpr (PACKED) {
      const uint4* quads = reinterpret_cast<const uint4*>(&pack);
#pragma unroll
      for (int q = 0; q < int(sizeof(pack) / 16); ++q)
        if (holds(c, 0)) reinterpret_cast<uint4*>(row + column(c, 0))[q] = quads[q];
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k)
        if (holds(c, k)) row[column(c, k)] = pack.get(k);
    }
  }

  // C chunks with nothing between their loads, so that all of them are in flight together
  template <typename U, int C>
  __device__ void load(const U* row, Values<U, V> (&packs)[C]) const {
    for_chunks<PACKED>([&](int c, Values<U, V>& pack) { pack = load(row, c); }, packs);
  }
};

// Makes the compiler unpack 16-bit values again from here on: a pack of floats takes twice the registers.
template <typename T, int C>
__device__ void keep_packed(Pack<T> (&packs)[C]) {
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int i = 0; i < kPack<T> / 2; ++i) asm volatile("" : "+r"(packs[c].v[i]));
  }
}

template <typename T, int C>
  requires(sizeof(T) == 2)
__device__ void keep_packed(Wide<T> (&)[C]) {}

// v <- its sum over the threads of a row, in an order that only their number sets. Up to a warp: `threads` neighbouring
// lanes; more: the block or, BESIDE others, those of one y. Successive calls need different scratch, so that one
// barrier each is enough.
template <bool BESIDE = false, int K, typename A>
__device__ void row_sum(A (&v)[K], int threads, A (*scratch)[32]) {
  const auto butterfly = [&](int width) {
#pragma unroll
    for (int k = 0; k < K; ++k)
      for (int step = width / 2; step > 0; step /= 2) v[k] += __shfl_xor_sync(0xffffffffu, v[k], step);
  };
  butterfly(threads < 32 ? threads : 32);
  if (threads <= 32) return;
  const int lane = threadIdx.x % 32, first = BESIDE ? threadIdx.y * (threads / 32) : 0;  // of the row's warps
  if (lane == 0)
    for (int k = 0; k < K; ++k) scratch[k][first + threadIdx.x / 32] = v[k];
  __syncthreads();
  for (int k = 0; k < K; ++k) v[k] = lane < threads / 32 ? scratch[k][first + lane] : A(0);
  butterfly(32);
}

}  // namespace normkernels::cuda
