// How a sweep of the channel family walks one part of a plane or, LAST, of a few adjacent channels.
#pragma once

#include "cuda/channels/plan.cuh"

namespace normkernels::cuda {

// K packs from as many tensors
template <typename T, int K>
struct Packs {
  Pack<T> of[K];
};

// A thread's way through one part: one pack of adjacent positions or, LAST, of adjacent channels in each step.
template <typename T, bool LAST, bool PACKED>
struct Walk {
  static constexpr int V = kPack<T>;
  using A = acc_t<T>;
  const Plan& plan;
  bool live;                     // whether this thread's channel exists
  int64_t channel, image, part;  // LAST: the first channel of the block
  int64_t at, stride;            // of x: where the part starts, and to the next step
  int steps;
  Tile<T, PACKED> tile;

  __device__ Walk(const Plan& plan, int64_t block) : plan(plan), tile(0, 0) {
    const int wide = blockDim.x * V;  // of a block's tile
    if constexpr (LAST) {
      const int64_t blocks = (plan.C + wide - 1) / wide, row = block / blocks;
      channel = block % blocks * wide, image = row / plan.parts, part = row % plan.parts;
      tile = Tile<T, PACKED>(plan.C, channel, wide);
      live = tile.holds(0, 0);
      at = (image * plan.S + part * plan.length + threadIdx.y) * plan.C + channel;
      stride = blockDim.y * plan.C;
      const int left = plan.positions(part) - threadIdx.y;
      steps = live && left > 0 ? (left - 1) / int(blockDim.y) + 1 : 0;
    } else {
      const int64_t plane = block / plan.parts * blockDim.y + threadIdx.y, planes = plan.N * plan.C;
      live = plane < planes;
      const int64_t safe = live ? plane : planes - 1;
      image = safe / plan.C, channel = safe - image * plan.C, part = block % plan.parts;
      tile = Tile<T, PACKED>(plan.S, live ? part * plan.length : plan.S, plan.length);
      at = safe * plan.S + part * plan.length, stride = 0;
      const int left = tile.columns - tile.column(0, 0);
      steps = left > 0 ? (left - 1) / wide + 1 : 0;
    }
  }

  __device__ bool holds(int i, int k) const { return PACKED || (LAST ? tile.holds(0, k) : tile.holds(i, k)); }
  // how many values of this thread's place k there are
  __device__ int count(int k) const {
    if constexpr (PACKED) return steps;
    return steps > 0 ? steps - !holds(steps - 1, k) * (LAST ? steps : 1) : 0;
  }
  __device__ Pack<T> load(const T* t, int i) const {
    if (t == nullptr || i >= steps) return Pack<T>{};
    return LAST ? tile.load(t + at + i * stride, 0) : tile.load(t + at, i);
  }
  __device__ void store(T* t, int i, const Wide<T>& values) const {
    LAST ? tile.store(t + at + i * stride, 0, narrow<T>(values)) : tile.store(t + at, i, narrow<T>(values));
  }

  // body(i, packs of step i of each tensor) for every step, with the loads of a few steps in flight together
  template <bool UNROLL, int K, typename Body>
  __device__ void sweep(const T* const (&tensors)[K], Body body) const {
    constexpr int FLIGHT = K == 1 ? 4 : (LAST && K == 3 ? 1 : 2);  // LAST holds numbers of V channels in registers
#pragma unroll 1
    for (int i = 0; i < steps; i += FLIGHT) {
      Packs<T, K> packs[FLIGHT];
#pragma unroll
      for (int j = 0; j < FLIGHT; ++j)
#pragma unroll
        for (int t = 0; t < K; ++t) packs[j].of[t] = load(tensors[t], i + j);
      const auto each = [&](int j, const Packs<T, K>& those) {
        if (i + j < steps) body(i + j, those.of);
      };
      for_chunks<UNROLL>(each, packs);
    }
  }

  // f(channel) for each of this thread's values
  template <typename F>
  __device__ Wide<T> by_channel(F f) const {
    if constexpr (LAST)
      return Wide<T>::of([&](int k) { return tile.holds(0, k) ? f(channel + tile.column(0, k)) : A(0); });
    const A value = f(channel);
    return Wide<T>::of([=](int) { return value; });
  }
  __device__ Wide<T> weight(const Affine<T>& affine) const {
    if constexpr (LAST) return load_weight(affine, tile, channel, 0);
    return by_channel([&](int64_t c) { return load_value<T>(affine.weight, c, 0, 1); });
  }
  __device__ Wide<T> bias(const Affine<T>& affine) const {
    if constexpr (LAST) return load_bias(affine, tile, channel, 0);
    return by_channel([&](int64_t c) { return load_value<T>(affine.bias, c, 0, 0); });
  }
  __device__ int64_t batch() const { return image / plan.images(); }
  __device__ unsigned group(int64_t c) const { return unsigned(c) / unsigned(plan.channels()); }
  // of (B, G) numbers those of this thread's channels
  __device__ Wide<T> statistic(const A* numbers) const {
    const A* row = numbers + batch() * plan.G;
    if constexpr (LAST)
      if (plan.channels() == 1) return tile.load(row + channel, 0);
    return by_channel([&](int64_t c) { return row[group(c)]; });
  }

  // This part's line of a table, from the threads that have it.
  __device__ void record(A* table, const Wide<T>& values) const {
    A* line = table + (image * plan.parts + part) * plan.C + channel;
    if constexpr (LAST) {
      if (threadIdx.y == 0) tile.store(line, 0, values);
    } else {
      if (threadIdx.x == 0 && live) *line = values.v[0];
    }
  }
};

// Sums over the threads that share a channel, in an order that only the geometry sets. All of them get it. CALL: each
// call in a kernel has its own scratch, so that one barrier is enough.
template <int CALL, typename T, bool LAST, bool PACKED>
__device__ Wide<T> sum_threads(const Walk<T, LAST, PACKED>&, Wide<T> values) {
  using A = acc_t<T>;
  if constexpr (LAST) {
    __shared__ Wide<T> scratch[kChannelWarps][kAdjacentPacks];
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    for (int step = blockDim.x; step < 32; step *= 2)
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) values.v[k] += __shfl_xor_sync(0xffffffffu, values.v[k], step);
    if (thread % 32 < int(blockDim.x)) scratch[thread / 32][threadIdx.x] = values;
    __syncthreads();
    values = scratch[0][threadIdx.x];
    for (int warp = 1; warp < kChannelWarps; ++warp)
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) values.v[k] += scratch[warp][threadIdx.x].v[k];
    return values;
  }
  __shared__ A scratch[1][32];
  A sum[1] = {A(0)};
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) sum[0] += values.v[k];
  row_sum(sum, blockDim.x, scratch);
  return Wide<T>::of([&](int) { return sum[0]; });
}

}  // namespace normkernels::cuda
