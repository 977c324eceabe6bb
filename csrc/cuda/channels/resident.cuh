// A statistic whose values fit in the registers of a block, or of the blocks of a cluster, so that they are read once.
// Not for channels LAST.
#pragma once

#include "cuda/channels/plan.cuh"
#include "cuda/rows/cluster_sums.cuh"

namespace normkernels::cuda {

inline constexpr int kResidentPacks = 4;                             // of a thread, from each tensor
inline constexpr int kForwardThreads = 896, kBackwardThreads = 512;  // at most: they leave 72 and 128 registers
inline constexpr int kAloneThreads = 512, kTogetherThreads = 256;    // of a block, and at best of each of a cluster

// Division by a number that is not 1, without dividing again.
struct Divisor {
  unsigned by, inverse;
  __device__ explicit Divisor(unsigned by) : by(by), inverse(0xffffffffu / by + 1) {}
  __device__ unsigned quotient(unsigned i) const {
    const unsigned q = uint64_t(i) * inverse >> 32;  // one too many for some i beyond 2^32 / by
    return q * by > i ? q - 1 : q;
  }
};

// The values of one statistic, in packs. ONE: of one channel, in each image of a batch; else a run of adjacent channels
// of an image. MANY: each block of a cluster has adjacent ones of them.
template <typename T, bool ONE, bool MANY>
struct Slice {
  static constexpr int V = kPack<T>;
  using A = acc_t<T>;
  unsigned rank, blocks;  // of the cluster
  unsigned statistic, batch, first_channel;
  bool live;
  unsigned count;
  Divisor S;
  unsigned start, at[kResidentPacks];  // in packs of x: where the statistic begins, and this thread's packs

  __device__ explicit Slice(const Plan& plan)
      : rank(Cluster<MANY>::rank()),
        blocks(Cluster<MANY>::blocks()),
        statistic(MANY ? blockIdx.x / blocks : blockIdx.x * blockDim.y + threadIdx.y),
        live(statistic < unsigned(plan.B * plan.G)),
        S(plan.S) {
    const unsigned G = plan.G, channels = ONE ? 1 : unsigned(plan.C) / G,
                   images = ONE ? unsigned(plan.N) / unsigned(plan.B) : 1;
    if (!live) statistic = 0;
    count = live ? images * channels * S.by : 0;
    batch = statistic / G, first_channel = (statistic - batch * G) * channels;
    start = unsigned(batch * images * unsigned(plan.C) + first_channel) * int64_t(S.by) / V;
    const unsigned between = plan.C * plan.S / V;  // images
#pragma unroll
    for (int c = 0; c < kResidentPacks; ++c) {
      const unsigned image = ONE ? S.quotient(place(c)) : 0;
      at[c] = start + image * between + (place(c) - image * S.by) / V;
    }
  }
  __device__ unsigned room() const { return kResidentPacks * blockDim.x; }  // of a block, in packs
  // how many values this block has, or 1
  __device__ unsigned part() const {
    const unsigned most = room() * V, left = count > rank * most ? count - rank * most : 1;
    return left < most ? left : most;
  }
  // of this thread's pack c
  __device__ unsigned place(int c) const { return (rank * room() + c * blockDim.x + threadIdx.x) * V; }
  __device__ bool holds(int c) const { return place(c) < count; }

  __device__ void load(const T* t, Pack<T> (&packs)[kResidentPacks]) const {
#pragma unroll
    for (int c = 0; c < kResidentPacks; ++c) {
      packs[c] = Pack<T>{};
      if (t != nullptr && holds(c)) reinterpret_cast<uint4&>(packs[c]) = reinterpret_cast<const uint4*>(t)[at[c]];
    }
  }
  // where: at[c]
  __device__ void store(T* t, int c, unsigned where, const Wide<T>& values) const {
    const Pack<T> pack = narrow<T>(values);
    if (holds(c)) reinterpret_cast<uint4*>(t)[where] = reinterpret_cast<const uint4&>(pack);
  }
};

// A parameter of a statistic's channels; of one it is read once.
template <typename T, bool ONE>
struct Along {
  using A = acc_t<T>;
  Parameter p;
  A absent, one;

  template <bool MANY>
  __device__ Along(const Parameter& p, const Slice<T, ONE, MANY>& slice, A absent)
      : p(p), absent(absent), one(ONE ? load_value<T>(p, slice.first_channel, 0, absent) : absent) {}

  // of the first value of pack c
  template <bool MANY>
  __device__ A first(const Slice<T, ONE, MANY>& slice, int c) const {
    if constexpr (ONE) return one;
    return load_value<T>(p, slice.first_channel + slice.S.quotient(slice.place(c)), 0, absent);
  }
  // of each value of pack c, which ends in the next channel at most
  template <bool MANY>
  __device__ Wide<T> all(const Slice<T, ONE, MANY>& slice, int c) const {
    if (ONE || p.data == nullptr || !slice.holds(c)) return Wide<T>::of([&](int) { return one; });
    const unsigned before = slice.S.quotient(slice.place(c)), left = (before + 1) * slice.S.by - slice.place(c);
    const int64_t channel = slice.first_channel + before;
    const A here = load_value<T>(p, channel, 0, absent);
    const A next = left < kPack<T> ? load_value<T>(p, channel + 1, 0, absent) : here;
    return Wide<T>::of([&](int k) { return unsigned(k) < left ? here : next; });
  }
};

// ---- host ----

// How many blocks hold a statistic: one, or a cluster's four or eight where clusters(blocks) says that there are
// such, of any threads up to `threads`; 0: none do. Of an image from C, G, S and the dtype alone.
template <typename T, typename Clusters>
unsigned holders(const Plan& z, int threads, Clusters clusters) {
  constexpr int64_t V = kPack<T>, each = kResidentPacks * V;
  const int64_t run = (z.images() > 1 ? 1 : z.channels()) * z.S, count = z.images() * z.channels() * z.S;
  if (!kFast<T> || z.last || !z.aligned || run % V != 0 || z.S < V || z.N * z.C * z.S / V > INT32_MAX) return 0;
  const unsigned blocks = cluster_of(ceil_div(count, kTogetherThreads * each));
  if (count > kAloneThreads * each && count <= blocks * threads * each && clusters(blocks)) return blocks;
  return count <= threads * each;
}

// run(ONE, MANY), each a std::bool_constant
template <typename Run>
void with_holders(const Plan& plan, unsigned blocks, Run run) {
  using Yes = std::true_type;
  using No = std::false_type;
  if (plan.channels() == 1) return blocks > 1 ? run(Yes(), Yes()) : run(Yes(), No());
  return blocks > 1 ? run(No(), Yes()) : run(No(), No());
}

template <typename Params>
void launch_resident(void (*kernel)(Params), const Params& p, int pack, unsigned blocks, const Device& device) {
  const int64_t packs = p.plan.images() * p.plan.channels() * p.plan.S / pack, statistics = p.plan.B * p.plan.G;
  const dim3 block = row_block(ceil_div<int64_t>(packs, blocks), kResidentPacks, kChannelThreads);
  if (blocks > 1) return launch_clusters(kernel, blocks, dim3(statistics * blocks), block, 0, device, p);
  launch(kernel, dim3(ceil_div<int64_t>(statistics, block.y)), block, device, p);
}

}  // namespace normkernels::cuda
