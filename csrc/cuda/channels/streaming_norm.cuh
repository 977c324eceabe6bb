// Streaming norm (Liao, Kawaguchi & Poggio 2016): statistics of the batch, and the gradients by them, enter a short and
// a long memory; y and dx are made of the mixture. Pairs (2, C) hold a mean and a scale, or the gradients of both.
#pragma once

#include <limits>

#include "cuda/channels/forward.cuh"
#include "cuda/channels/tables.cuh"

namespace normkernels::cuda {

template <typename T>
struct Memory {
  using A = acc_t<T>;
  const A *long_term, *short_term;  // (2, C)
  const A* counts;                  // of arrivals in the short term, and of updates of the long one
  A* new_short_term;                // (2, C)
  A of_long, of_short, of_found;    // weights of what is used

  // What is used when `found` arrives at i; the short term stands in for a long one that is not yet there.
  __device__ A arrive(int64_t i, A found) const {
    const A recent = short_term[i] + (found - short_term[i]) / (counts[0] + 1);
    new_short_term[i] = recent;
    return of_long * (counts[1] > 0 ? long_term[i] : recent) + of_short * recent + of_found * found;
  }
};

template <typename T>
struct StreamingForward {
  Plan plan;  // (1, C)
  const T *x, *skip;
  Affine<T> affine;
  T* y;
  Memory<T> memory;
  acc_t<T>*found, *used, *deviations;  // (2, C), (2, C), (C,); the last absent where the power is 2
  acc_t<T> power, eps;
  acc_t<T>*table, *moment, *rstd;  // of each part: sums of |v|^power and of its derivative; of each channel
};

// v = x - mean: the sums of |v|^power, and of |v|^(power - 1) sign(v)
template <typename T, bool LAST, bool PACKED>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1)
    streaming_powers_kernel(const StreamingForward<T> p) {
  const Walk<T, LAST, PACKED> walk(p.plan, blockIdx.x);
  const Wide<T> mean = walk.statistic(p.found);
  Wide<T> powers{}, sum{};
  walk.template sweep<false>({p.x}, [&](int i, const Pack<T>(&packs)[1]) {
    const Wide<T> x = widen<T>(packs[0]), v = Wide<T>::of([&](int k) { return x.v[k] - mean.v[k]; });
    Wide<T> away = v;
    deviate<T>(away, p.power);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k)
      if (walk.holds(i, k)) powers.v[k] += v.v[k] * away.v[k], sum.v[k] += away.v[k];
  });
  walk.record(p.table, sum_threads<0>(walk, powers));
  walk.record(p.table + p.plan.rows() * p.plan.C, sum_threads<1>(walk, sum));
}

// both numbers of a channel, summed over its parts by the threads of a Merge; all of them get it
template <typename T>
__device__ void merge_sums(const Plan& plan, const Merge& merge, const acc_t<T>* table, acc_t<T> (&total)[2],
                           acc_t<T> (*scratch)[32]) {
  merge.each(plan, [&](int64_t, unsigned, int64_t at) {
    total[0] += table[at];
    total[1] += table[plan.rows() * plan.C + at];
  });
  row_sum(total, blockDim.x, scratch);
}

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) streaming_moments_kernel(const StreamingForward<T> p) {
  __shared__ acc_t<T> scratch[2][32];
  const Merge merge(p.plan);
  acc_t<T> total[2] = {0, 0};
  merge_sums<T>(p.plan, merge, p.table, total, scratch);
  if (threadIdx.x != 0 || !merge.live) return;
  const acc_t<T> count = acc_t<T>(p.plan.N) * acc_t<T>(p.plan.S);
  p.moment[merge.statistic] = total[0] / count, p.deviations[merge.statistic] = total[1] / count;
}

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) streaming_statistics_kernel(const StreamingForward<T> p) {
  using A = acc_t<T>;
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, C = p.plan.C;
  if (c >= C) return;
  const A powered = p.moment[c] + p.eps;
  const A scale = p.power == A(2) ? sqrt(powered) : p.power == A(1) ? powered : pow(powered, 1 / p.power);
  p.found[C + c] = scale;
  p.used[c] = p.memory.arrive(c, p.found[c]);
  p.used[C + c] = p.memory.arrive(C + c, scale);
  p.rstd[c] = 1 / p.used[C + c];
}

template <typename T>
struct StreamingBackward : TablesBackward<T> {
  Memory<T> memory;
  const acc_t<T>*found, *used, *deviations;
  acc_t<T>*rstd, *coefficients;  // (C,), and (3, C): by_du, by_x, c
};

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) streaming_inverse_kernel(const StreamingBackward<T> p) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, C = p.plan.C;
  if (c < C) p.rstd[c] = 1 / p.used[C + c];
}

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) streaming_gradients_kernel(const StreamingBackward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][32];
  const Plan& plan = p.plan;
  const Merge merge(plan);
  A total[2] = {A(0), A(0)};
  merge_sums<T>(plan, merge, p.table, total, scratch);
  if (threadIdx.x != 0 || !merge.live) return;
  const int64_t c = merge.statistic, C = plan.C;
  const A count = A(plan.N) * A(plan.S), by_du = load_value<T>(p.affine.weight, c, 0, 1) * p.rstd[c];
  const A of_mean = p.memory.arrive(c, -by_du * total[1]) / count;
  const A of_scale = p.memory.arrive(C + c, -by_du * total[0]) / count, scale = p.found[C + c];
  const A power = p.power, by_x = power == A(1) ? of_scale : of_scale * pow(scale, 1 - power);
  p.coefficients[c] = by_du, p.coefficients[C + c] = by_x;
  p.coefficients[2 * C + c] = of_mean - (p.deviations == nullptr ? A(0) : by_x * p.deviations[c]);
}

// ---- host ----

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void streaming_norm_forward(StreamingForward<T> p, const Device& device, Workspace workspace) {
  const int64_t C = p.plan.C;
  p.moment = workspace(C), p.rstd = workspace(C);
  ChannelsForward<T> moments{};
  moments.plan = p.plan, moments.x = p.x, moments.mean = p.found, moments.var = p.moment;
  channels_moments(moments, device, workspace);
  if (p.power != acc_t<T>(2)) {
    p.table = workspace(2 * p.plan.rows() * C);
    with_layout<T>(p.plan, false, [&](auto last, auto packed, auto) {
      launch_sweep<T>(streaming_powers_kernel<T, last, packed>, p, device);
    });
    launch_rule(streaming_moments_kernel<T>, p, device);
  }
  launch_channels(streaming_statistics_kernel<T>, p, C, device);
  const acc_t<T> none = std::numeric_limits<acc_t<T>>::infinity();
  channels_tables_apply(TablesForward<T>{p.plan, p.x, p.skip, p.affine, {p.used, p.rstd, nullptr, none}, p.y}, device);
}

template <typename T, typename Workspace>
void streaming_norm_backward(StreamingBackward<T> p, LineSums<T> sums, const Device& device, Workspace workspace) {
  const int64_t C = p.plan.C, rows = p.plan.rows();
  p.rstd = workspace(C), p.coefficients = workspace(3 * C);
  launch_channels(streaming_inverse_kernel<T>, p, C, device);
  p.tables = {p.used, p.rstd, nullptr, std::numeric_limits<acc_t<T>>::infinity()};
  sums.partial = p.table = workspace(2 * rows * C), sums.P = rows;
  channels_tables_sums(p, device);
  if (sums.dweight != nullptr || sums.dbias != nullptr) line_sums(sums, device);
  launch_rule(streaming_gradients_kernel<T>, p, device);
  p.about = p.found, p.by_du = p.coefficients;
  p.by_x = p.coefficients + C, p.c = p.coefficients + 2 * C;
  channels_tables_dx(p, device);
}

}  // namespace normkernels::cuda
