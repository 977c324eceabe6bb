// A statistic whose values fit in the registers of a block, or of the blocks of a cluster, so that they are read once.
// Not for channels LAST.
#pragma once

#include "cuda/base/cluster.cuh"
#include "cuda/channels/plan.cuh"
#include "cuda/rows/moments.cuh"

namespace normkernels::cuda {

inline constexpr int kResidentPacks = 4;                             // of a thread, from each tensor
inline constexpr int kForwardThreads = 896, kBackwardThreads = 512;  // at most: they leave 72 and 128 registers

// The values of one statistic, in packs: one run of adjacent channels or, in a batch, one channel of each image. MANY:
// each block of a cluster has adjacent ones of them.
template <typename T, bool MANY>
struct Slice {
  static constexpr int V = kPack<T>;
  unsigned rank, blocks;  // of the cluster
  int64_t statistic;
  bool live, batch;
  unsigned S, count, first_channel;
  int64_t base, stride;  // of x: where the statistic starts, and from an image to the next

  __device__ explicit Slice(const Plan& plan)
      : rank(Cluster<MANY>::rank()),
        blocks(Cluster<MANY>::blocks()),
        statistic(MANY ? int64_t(blockIdx.x / blocks) : int64_t(blockIdx.x) * blockDim.y + threadIdx.y),
        live(statistic < plan.B * plan.G),
        batch(plan.images() > 1),
        S(plan.S),
        count(live ? plan.images() * plan.channels() * plan.S : 0),
        stride(plan.C * plan.S) {
    if (!live) statistic = 0;
    first_channel = statistic % plan.G * plan.channels();
    base = plan.first(statistic / plan.G, statistic % plan.G);
  }
  __device__ unsigned room() const { return kResidentPacks * blockDim.x; }  // of a block, in packs
  // how many values block r has
  __device__ unsigned part(unsigned r) const {
    const unsigned most = room() * V, left = count > r * most ? count - r * most : 0;
    return left < most ? left : most;
  }
  // of this thread's pack c
  __device__ unsigned place(int c) const { return (rank * room() + c * blockDim.x + threadIdx.x) * V; }
  __device__ bool holds(int c) const { return place(c) < count; }
  __device__ int64_t at(int c) const {
    const unsigned i = place(c);
    return batch ? base + i / S * stride + i % S : base + i;
  }
  __device__ unsigned channel(int c) const { return first_channel + (batch ? 0 : place(c) / S); }

  template <int C>
  __device__ void load(const T* t, Pack<T> (&packs)[C]) const {
#pragma unroll
    for (int c = 0; c < C; ++c) {
      packs[c] = Pack<T>{};
      if (t != nullptr && holds(c)) reinterpret_cast<uint4&>(packs[c]) = *reinterpret_cast<const uint4*>(t + at(c));
    }
  }
  __device__ void store(T* t, int c, const Wide<T>& values) const {
    const Pack<T> pack = narrow<T>(values);
    if (holds(c)) *reinterpret_cast<uint4*>(t + at(c)) = reinterpret_cast<const uint4&>(pack);
  }
  // The parameter of each value of pack c, which ends in the next channel at most.
  __device__ Wide<T> parameter(Parameter p, int c, acc_t<T> absent) const {
    const unsigned first = channel(c), left = batch ? V : S - place(c) % S;
    if (p.data == nullptr || !holds(c)) return Wide<T>::of([=](int) { return absent; });
    const acc_t<T> one = load_value<T>(p, first, 0, 0), next = left < V ? load_value<T>(p, first + 1, 0, 0) : one;
    return Wide<T>::of([=](int k) { return unsigned(k) < left ? one : next; });
  }
};

// ---- host ----

// How many blocks hold a statistic: one, or a cluster's two, four or eight; 0: none do. Of an image from C, G, S and
// the dtype alone.
template <typename T>
unsigned holders(const Plan& z, int threads) {
  const int64_t run = (z.images() > 1 ? 1 : z.channels()) * z.S, count = z.images() * z.channels() * z.S;
  if (!kFast<T> || z.last || !z.aligned || run % kPack<T> != 0 || z.S < kPack<T>) return 0;
  const int64_t needed = ceil_div<int64_t>(count, threads * kResidentPacks * kPack<T>);
  return needed <= kMostBlocks ? power_of_two(needed, kMostBlocks) : 0;
}

template <typename Params>
void launch_resident(void (*kernel)(Params), const Params& p, int pack, unsigned blocks, const Device& device) {
  const int64_t packs = p.plan.images() * p.plan.channels() * p.plan.S / pack, statistics = p.plan.B * p.plan.G;
  const dim3 block = row_block(ceil_div<int64_t>(packs, blocks), kResidentPacks, kChannelThreads);
  if (blocks > 1) return launch_clusters(kernel, blocks, dim3(statistics * blocks), block, device, p);
  launch(kernel, dim3(ceil_div<int64_t>(statistics, block.y)), block, device, p);
}

}  // namespace normkernels::cuda
