// Rules that go through the samples of a batch in order, for each channel by itself. A block has a few neighbouring
// channels: all its warps load a tile of samples, one goes through them in order, all make of it what is stored.
#pragma once

#include "cuda/channels/plan.cuh"

namespace normkernels::cuda {

inline constexpr int kScanChannels = 32, kScanWarps = 8;
inline constexpr int kScanSamples = 32;  // of a tile, and of a block where no state goes from sample to sample

template <typename Item>
struct Scan {
  int64_t channel, first, last;
  bool live;

  __device__ Scan(const Plan& plan, bool in_order) {
    const int64_t blocks = (plan.C + kScanChannels - 1) / kScanChannels, tile = blockIdx.x / blocks;
    channel = blockIdx.x % blocks * kScanChannels + threadIdx.x;
    first = in_order ? 0 : tile * kScanSamples;
    last = in_order || plan.N - first < kScanSamples ? plan.N : first + kScanSamples;
    live = channel < plan.C;
    if (!live) channel = 0;
  }
  // For every sample n: item = load(n), in any order; step(item), in order; store(n, item), in any order.
  template <typename Load, typename Step, typename Store>
  __device__ void each(Item (*items)[kScanChannels], Load load, Step step, Store store) const {
    for (int64_t start = first; start < last; start += kScanSamples) {
      const int count = last - start < kScanSamples ? last - start : kScanSamples;
      for (int j = threadIdx.y; j < count; j += kScanWarps) items[j][threadIdx.x] = load(start + j);
      __syncthreads();
      if (threadIdx.y == 0)
        for (int j = 0; j < count; ++j) step(items[j][threadIdx.x]);
      __syncthreads();
      for (int j = threadIdx.y; j < count; j += kScanWarps)  // those that this thread loads next
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
void launch_scan(void (*kernel)(Params), const Params& p, bool in_order, const Device& device) {
  const int64_t tiles = in_order ? 1 : ceil_div<int64_t>(p.plan.N, kScanSamples);
  launch(kernel, dim3(ceil_div<int64_t>(p.plan.C, kScanChannels) * tiles), dim3(kScanChannels, kScanWarps), device, p);
}

}  // namespace normkernels::cuda
