// What the sweeps of batch, group and instance norm share. x is (N, C, S), or (N, S, C) where the channels lie LAST; a
// statistic of the (B, G) pools N / B images and C / G adjacent channels. Each channel of an image is cut into parts of
// positions. A sweep that reduces leaves two numbers of each in a table (2, N * parts, C), a rule merges the table.
#pragma once

#include <algorithm>

#include "cuda/base/affine.cuh"
#include "cuda/base/line_sums.cuh"

namespace normkernels::cuda {

inline constexpr int kChannelThreads = 256, kChannelWarps = kChannelThreads / 32;  // of a block
inline constexpr int kLeastSteps = 8;      // packs of a thread in a part: enough to pay for the merge
inline constexpr int kMostParts = 1024;    // enough for any device
inline constexpr int kMostWarpSteps = 16;  // of a plane that a warp takes, in packs of a thread
inline constexpr int kAdjacentPacks = 8;   // LAST: 128 bytes of adjacent channels

// Sizes and geometry, the same on every device. How an image is cut depends on C, S and the dtype, never on N.
//   S, in packs  threads along it   channels LAST, C in packs   threads along them
//   up to 32     as many packs      up to 8                     as many packs
//   up to 512    a warp             more                        8 (128 bytes)
//   more         the block
struct Plan {
  int64_t N, C, S, B, G;
  bool last, aligned, packed;  // aligned: every pointer; packed: and every row is a whole number of packs
  int threads;                 // of a block along the positions, or LAST along the channels
  int64_t length, parts;       // positions of a part, parts of a channel of an image

  __host__ __device__ int64_t images() const { return N / B; }
  __host__ __device__ int64_t channels() const { return C / G; }
  __host__ __device__ int64_t rows() const { return N * parts; }  // of the table
  // of x: where the first value of a statistic is
  __host__ __device__ int64_t first(int64_t b, int64_t g) const {
    return (b * images() * C + (last ? 0 : g * channels())) * S + (last ? g * channels() : 0);
  }
  __host__ __device__ int64_t positions(int64_t part) const {
    return S - part * length < length ? S - part * length : length;
  }
};

// A rule's way through the table: `threads` neighbours share a statistic, all of them stay to the end.
struct Merge {
  int64_t statistic;
  bool live;
  int64_t first_row, first_channel;
  unsigned channels, entries, parts;

  __device__ explicit Merge(const Plan& plan)
      : statistic(int64_t(blockIdx.x) * blockDim.y + threadIdx.y),
        live(statistic < plan.B * plan.G),
        channels(plan.channels()),
        entries(plan.images() * plan.parts * plan.channels()),
        parts(plan.parts) {
    if (!live) statistic = 0;
    first_row = statistic / plan.G * plan.images() * plan.parts;
    first_channel = statistic % plan.G * plan.channels();
  }
  // f(channel, part, place in the table) for every entry of this thread
  template <typename F>
  __device__ void each(const Plan& plan, F f) const {
    for (unsigned e = threadIdx.x; e < entries; e += blockDim.x) {
      const unsigned row = e / channels, channel = e - row * channels;
      f(first_channel + channel, row % parts, (first_row + row) * plan.C + first_channel + channel);
    }
  }
};

// ---- host ----

inline int power_of_two(int64_t at_least, int most) {
  int n = 1;
  while (n < at_least && n < most) n *= 2;
  return n;
}

template <typename T>
Plan make_plan(int64_t N, int64_t C, int64_t S, int64_t B, int64_t G, bool last, bool aligned) {
  Plan plan{N, C, S, B, G, last, aligned, aligned && (last ? C : S) % kPack<T> == 0};
  const int64_t packs = ceil_div<int64_t>(last ? C : S, kPack<T>);
  const bool block = !last && packs > 32 * kMostWarpSteps;
  plan.threads = block ? kChannelThreads : power_of_two(packs, last ? kAdjacentPacks : 32);
  const int64_t step = last ? kChannelThreads / plan.threads : plan.threads * kPack<T>;
  plan.length = step * std::max<int64_t>(kLeastSteps, ceil_div<int64_t>(ceil_div(S, step), kMostParts));
  plan.parts = ceil_div(S, plan.length);
  return plan;
}

// A sweep over all parts.
template <typename T, typename Params>
void launch_sweep(void (*kernel)(Params), const Params& p, const Device& device) {
  const Plan& z = p.plan;
  const dim3 block(z.threads, kChannelThreads / z.threads);
  const int64_t blocks =
      z.last ? ceil_div<int64_t>(z.C, z.threads * kPack<T>) * z.N : ceil_div<int64_t>(z.N * z.C, block.y);
  launch(kernel, dim3(blocks * z.parts), block, device, p);
}

// A rule over all statistics: few threads for each while it has few entries.
template <typename Params>
void launch_rule(void (*kernel)(Params), const Params& p, const Device& device) {
  const Plan& z = p.plan;
  const int64_t entries = z.images() * z.parts * z.channels();
  const int threads = entries > 128 ? kChannelThreads : power_of_two(ceil_div<int64_t>(entries, 4), 32);
  const dim3 block(threads, kChannelThreads / threads);
  launch(kernel, dim3(ceil_div<int64_t>(z.B * z.G, block.y)), block, device, p);
}

// A thread for each of C channels.
template <typename Params>
void launch_channels(void (*kernel)(Params), const Params& p, int64_t C, const Device& device) {
  launch(kernel, dim3(ceil_div<int64_t>(C, kChannelThreads)), dim3(kChannelThreads), device, p);
}

// run(LAST, PACKED, ACTIVATED), each a std::bool_constant
template <typename T, typename Run>
void with_layout(const Plan& plan, bool activated, Run run) {
  using Yes = std::true_type;
  using No = std::false_type;
  if constexpr (kFast<T>) {
    if (plan.packed && !activated) return plan.last ? run(Yes(), Yes(), No()) : run(No(), Yes(), No());
    if (plan.packed) return plan.last ? run(Yes(), Yes(), Yes()) : run(No(), Yes(), Yes());
  }
  plan.last ? run(Yes(), No(), Yes()) : run(No(), No(), Yes());
}
template <typename T, typename Run>
void with_layout(const Plan& plan, Activation activation, Run run) {
  with_layout<T>(plan, activation != Activation::kIdentity, run);
}

}  // namespace normkernels::cuda
