// Backward of a batch whose statistics are channels, in two launches: where the parts of a channel are few, every block
// that fills dx merges the sums of its channels, which are dweight and dbias too.
#pragma once

#include "cuda/channels/backward.cuh"

namespace normkernels::cuda {

inline constexpr int kMergedBlocks = 256;  // two on each multiprocessor, about
inline constexpr int kFewRecords = 1024,
                     kMostRecords = 2048;  // sums that a block merges, of du and as many of du * xhat
inline constexpr int kLeastPacks = 2;      // LAST: 32 bytes of adjacent channels, a sector

// Of this thread's channels the sum over every part of a table, in an order that only the geometry sets.
template <int CALL, typename T, bool LAST, bool PACKED>
__device__ Wide<T> merged(const Walk<T, LAST, PACKED>& walk, const acc_t<T>* table) {
  Wide<T> sum{};
  const int rows = walk.plan.rows();
  const acc_t<T>* first = table + walk.channel;
  if constexpr (LAST) {
#pragma unroll 2
    for (int row = threadIdx.y; row < rows; row += blockDim.y) {
      const Wide<T> line = walk.tile.load(first + row * walk.plan.C, 0);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) sum.v[k] += line.v[k];
    }
  } else {
#pragma unroll 4
    for (int row = threadIdx.x; row < rows; row += blockDim.x) sum.v[0] += first[row * walk.plan.C];
  }
  return sum_threads<CALL>(walk, sum);
}

// The last part first: it may still be in the cache. The block of a channel's first part keeps its sums.
template <typename T, bool LAST, bool PACKED, int FINISH>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1)
    channels_merge_dx_kernel(const ChannelsBackward<T> p) {
  using A = acc_t<T>;
  const Walk<T, LAST, PACKED> walk(p.plan, int64_t(gridDim.x) - 1 - blockIdx.x);
  const Normalised<T, LAST, PACKED, FINISH> by(p, walk);
  Wide<T> slope = merged<0>(walk, p.table), offset = merged<1>(walk, p.table + p.plan.rows() * p.plan.C);
  if (walk.live && walk.image == 0 && walk.part == 0 && (LAST ? threadIdx.y : threadIdx.x) == 0) {
#pragma unroll
    for (int k = 0; k < (LAST ? kPack<T> : 1); ++k) {
      if (LAST && !walk.tile.holds(0, k)) continue;
      const int64_t channel = walk.channel + (LAST ? walk.tile.column(0, k) : 0);
      p.sums.write(channel, 0, slope.v[k]), p.sums.write(channel, 1, offset.v[k]);
    }
  }
  const A count = A(p.plan.N) * A(p.plan.S);
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) {
    slope.v[k] *= by.scale.v[k] * by.rstd.v[k] / count;
    offset.v[k] *= by.scale.v[k] / count;
  }
  write_dx(p, walk, by, slope, offset);
}

// ---- host ----

// LAST: fewer and longer parts than others have, and narrower tiles where channels are few.
template <typename T>
Plan shared_out(Plan z) {
  if (!z.last) return z;
  const auto wide = [&] { return int64_t(z.threads) * kPack<T>; };
  while (z.threads > kLeastPacks && wide() * wide() * kMergedBlocks > kFewRecords * z.C) z.threads /= 2;
  const int64_t blocks = ceil_div(z.C, wide()) * z.N, step = kChannelThreads / z.threads;
  const int64_t parts = std::max<int64_t>(1, std::min(kMergedBlocks / blocks, kMostRecords / wide()));
  z.length = step * ceil_div(ceil_div(z.S, step), parts);
  z.parts = ceil_div(z.S, z.length);
  return z;
}

// Whether what a block merges is few, and statistics are the channels of one batch.
template <typename T>
bool merges(const Plan& z) {
  const int64_t channels = z.last ? z.threads * kPack<T> : kChannelThreads / z.threads;
  return z.B == 1 && z.C == z.G && z.rows() * channels <= kMostRecords;
}

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void merged_channels_backward(ChannelsBackward<T> p, const Device& device, Workspace workspace) {
  channels_partial_sums(p, device, workspace);
  with_finish<T>(p.plan, p.affine.activation, p.gated, [&](auto last, auto packed, auto finish) {
    launch_sweep<T>(channels_merge_dx_kernel<T, last, packed, finish>, p, device);
  });
}

}  // namespace normkernels::cuda
