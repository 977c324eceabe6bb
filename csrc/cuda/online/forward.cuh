// Forward of online norm (Chiley et al. 2019): moments of each sample, a walk over the samples for the statistics that
// each of them meets, layer scaling's gain, then y from the tables.
#pragma once

#include "cuda/channels/forward.cuh"
#include "cuda/channels/tables.cuh"
#include "cuda/online/walk.cuh"

namespace normkernels::cuda {

// Mean and variance of x by sample and channel; where S is 1 that is x itself.
template <typename T>
struct Samples {
  const T* x;                 // or null:
  const acc_t<T>*mean, *var;  // (N, C)

  __device__ acc_t<T> mean_at(int64_t i) const { return x != nullptr ? widen(x[i]) : mean[i]; }
  __device__ acc_t<T> var_at(int64_t i) const { return x != nullptr || var == nullptr ? acc_t<T>(0) : var[i]; }
};

template <typename T>
struct OnlineForward {
  using A = acc_t<T>;
  Plan plan;  // (N, C)
  const T *x, *skip;
  Affine<T> affine;
  const A *running_mean, *running_var;  // (C,)
  const double* rates;                  // (N,) or absent: the statistics are constants
  T* y;
  A *mean, *rstd, *xhat_mean, *xhat_square;  // (N, C); the last two may be absent
  A *gain, *new_mean, *new_var;              // (N,) or absent; (C,)
  A eps, ls_eps, clamp;
  Samples<T> samples;
};

// The mean and variance of a sample, then those that it meets.
template <typename A>
struct OnlineItem {
  A mean, var, rate;
};

template <typename T>
__global__ void __launch_bounds__(kOnlineChannels* kOnlineWarps) online_statistics_kernel(const OnlineForward<T> p) {
  using A = acc_t<T>;
  using Item = OnlineItem<A>;
  __shared__ Item items[kOnlineSamples][kOnlineChannels];
  const OnlineWalk<Item> walk(p.plan, p.rates != nullptr);
  const int64_t c = walk.channel, C = p.plan.C;
  A mean = p.running_mean[c], var = p.running_var[c];
  const auto load = [&](int64_t n) {
    if (p.rates == nullptr) return Item{};
    const A m = p.samples.mean_at(n * C + c), s = p.samples.var_at(n * C + c);
    return is_finite(4 * (s + m * m)) ? Item{m, s, A(p.rates[n])} : Item{};  // so that (m - mean)^2 is finite too
  };
  const auto step = [&](Item& item) {
    const Item sample = item;
    const A off = sample.mean - mean, rate = sample.rate;
    item.mean = mean, item.var = var;
    var += rate * (sample.var - var) + rate * (1 - rate) * off * off;
    mean += rate * off;
  };
  walk.each(items, load, step, [&](int64_t n, const Item& met) {
    const int64_t at = n * C + c;
    const A rstd = A(1) / sqrt(met.var + p.eps);
    p.mean[at] = met.mean, p.rstd[at] = rstd;
    if (p.xhat_mean == nullptr) return;
    const A xhat = (p.samples.mean_at(at) - met.mean) * rstd;
    p.xhat_mean[at] = xhat, p.xhat_square[at] = p.samples.var_at(at) * rstd * rstd + xhat * xhat;
  });
  if (p.rates != nullptr && walk.live && threadIdx.y == 0) p.new_mean[c] = mean, p.new_var[c] = var;
}

// 1 / zeta of layer scaling, a block for each sample; mean(z^2) = w^2 s rstd^2 + mean(z)^2 by channel
template <typename T>
__global__ void __launch_bounds__(kChannelThreads) online_gain_kernel(const OnlineForward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[1][32];
  const int64_t n = blockIdx.x, C = p.plan.C;
  A sum[1] = {A(0)};
  for (int64_t c = threadIdx.x; c < C; c += blockDim.x) {
    const A w = load_value<T>(p.affine.weight, c, 0, 1) * p.rstd[n * C + c];
    const A z = (p.samples.mean_at(n * C + c) - p.mean[n * C + c]) * w + load_value<T>(p.affine.bias, c, 0, 0);
    sum[0] += p.samples.var_at(n * C + c) * w * w + z * z;
  }
  row_sum(sum, blockDim.x, scratch);
  if (threadIdx.x == 0) p.gain[n] = A(1) / sqrt(sum[0] / A(C) + p.ls_eps);
}

// ---- host ----

// Where S is 1 both layouts are one: threads lie along samples and channels.
template <typename T>
Plan online_plan(const Plan& z) {
  return z.S == 1 ? make_plan<T>(z.N, z.C, 1, z.N, z.C, false, z.aligned) : z;
}

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void online_norm_forward(OnlineForward<T> p, const Device& device, Workspace workspace) {
  p.plan = online_plan<T>(p.plan);
  const int64_t N = p.plan.N, C = p.plan.C;
  if (p.plan.S == 1) {
    p.samples = {p.x, nullptr, nullptr};
  } else if (p.rates != nullptr || p.gain != nullptr) {
    ChannelsForward<T> moments{};
    moments.plan = p.plan, moments.x = p.x, moments.mean = workspace(N * C), moments.var = workspace(N * C);
    channels_moments(moments, device, workspace);
    p.samples = {nullptr, moments.mean, moments.var};
  }
  launch_walk(online_statistics_kernel<T>, p, p.rates != nullptr, device);
  if (p.gain != nullptr) launch(online_gain_kernel<T>, dim3(N), dim3(kChannelThreads), device, p);
  channels_tables_apply(TablesForward<T>{p.plan, p.x, p.skip, p.affine, {p.mean, p.rstd, p.gain, p.clamp}, p.y},
                        device);
}

}  // namespace normkernels::cuda
