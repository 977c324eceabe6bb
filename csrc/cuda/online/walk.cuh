// Rules that go through the samples of a batch in order, for each channel by itself. A block has a few neighbouring
// channels: all its warps load a tile of samples, one goes through them in order, all make of it what is stored.
#pragma once

#include "cuda/channels/plan.cuh"

namespace normkernels::cuda {

inline constexpr int kOnlineChannels = 32, kOnlineWarps = 8;
inline constexpr int kOnlineSamples = 32;  // of a tile, and of a block where no state goes from sample to sample

template <typename Item>
struct OnlineWalk {
  int64_t channel, first, last;
  bool live;

  __device__ OnlineWalk(const Plan& plan, bool in_order) {
    const int64_t blocks = (plan.C + kOnlineChannels - 1) / kOnlineChannels, tile = blockIdx.x / blocks;
    channel = blockIdx.x % blocks * kOnlineChannels + threadIdx.x;
    first = in_order ? 0 : tile * kOnlineSamples;
    last = in_order || plan.N - first < kOnlineSamples ? plan.N : first + kOnlineSamples;
    live = channel < plan.C;
    if (!live) channel = 0;
  }
  // For every sample n: item = load(n), in any order; step(item), in order; store(n, item), in any order.
  template <typename Load, typename Step, typename Store>
  __device__ void each(Item (*items)[kOnlineChannels], Load load, Step step, Store store) const {
    for (int64_t start = first; start < last; start += kOnlineSamples) {
      const int count = last - start < kOnlineSamples ? last - start : kOnlineSamples;
      for (int j = threadIdx.y; j < count; j += kOnlineWarps) items[j][threadIdx.x] = load(start + j);
      __syncthreads();
      if (threadIdx.y == 0)
        for (int j = 0; j < count; ++j) step(items[j][threadIdx.x]);
      __syncthreads();
      for (int j = threadIdx.y; j < count; j += kOnlineWarps)  // those that this thread loads next
        if (live) store(start + j, items[j][threadIdx.x]);
    }
  }
};

// not infinite, not a NaN
template <typename A>
__device__ bool is_finite(A v) {
  return v - v == A(0);
}

template <typename Params>
void launch_walk(void (*kernel)(Params), const Params& p, bool in_order, const Device& device) {
  const int64_t tiles = in_order ? 1 : ceil_div<int64_t>(p.plan.N, kOnlineSamples);
  launch(kernel, dim3(ceil_div<int64_t>(p.plan.C, kOnlineChannels) * tiles), dim3(kOnlineChannels, kOnlineWarps),
         device, p);
}

}  // namespace normkernels::cuda
