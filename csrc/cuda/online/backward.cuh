// Backward of online norm: two sums of each sample and channel, tables made of them, one more sweep. It is no
// derivative of y: with g the gradient by xhat, and bars for means over a sample,
//   h = g - p * epsilon_y * xhat, dx = h * rstd - p * epsilon_1, epsilon_y += bar(h xhat), epsilon_1 += bar(dx).
// Layer scaling, of z = xhat * w + b by gain: dz = (G - out * kappa) * gain, G = du, kappa = mean(G out).
#pragma once

#include "cuda/channels/tables.cuh"
#include "cuda/online/forward.cuh"
#include "cuda/online/walk.cuh"

namespace normkernels::cuda {

template <typename T>
struct OnlineBackward : TablesBackward<T> {  // its tables: mean, rstd (N, C) and gain (N,) of forward
  using A = acc_t<T>;
  const A *xhat_mean, *xhat_square;  // (N, C); absent where S is 1
  const A *epsilon_y, *epsilon_1;    // (C,) or absent: the statistics were constants
  A *new_epsilon_y, *new_epsilon_1;  // (C,)
  A p;
  bool stable;
  A* sums;          // (2, N, C): of dz * xhat, and of dz
  A* kappa;         // (N,): mean of G * out, where there is a gain
  A* coefficients;  // (3, N, C) of dx: by_du, by_x, c

  __device__ A weight(int64_t c) const { return load_value<T>(this->affine.weight, c, 0, 1); }
  __device__ A bias(int64_t c) const { return load_value<T>(this->affine.bias, c, 0, 0); }
};

// The means over a sample of xhat and xhat^2; zero where nobody needs them.
template <typename T>
struct Xhat {
  acc_t<T> mean, square;
};
template <typename T>
__device__ Xhat<T> xhat_of(const OnlineBackward<T>& p, int64_t at) {
  if (p.xhat_mean != nullptr) return {p.xhat_mean[at], p.xhat_square[at]};
  if (p.plan.S != 1) return {acc_t<T>(0), acc_t<T>(0)};
  const acc_t<T> xhat = (widen(p.x[at]) - p.tables.mean[at]) * p.tables.rstd[at];
  return {xhat, xhat * xhat};
}

// The sums of dz from those of G by part; with a gain a block has all channels of its sample, and leaves kappa.
template <typename T>
__global__ void __launch_bounds__(kChannelThreads) online_samples_kernel(const OnlineBackward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[1][32];
  const Plan& plan = p.plan;
  const int64_t C = plan.C, NC = plan.N * C, rows = plan.rows();
  const bool scaled = p.tables.gain != nullptr;
  const int64_t chunks = scaled ? 1 : (C + kChannelThreads - 1) / kChannelThreads, n = blockIdx.x / chunks;
  const int64_t first = blockIdx.x % chunks * kChannelThreads;
  const int64_t last = scaled || C - first < kChannelThreads ? C : first + kChannelThreads;
  const A gain = scaled ? p.tables.gain[n] : A(1);
  A inner[1] = {A(0)};
  for (int64_t c = first + threadIdx.x; c < last; c += blockDim.x) {
    A by_xhat = 0, sum = 0;
    for (int64_t row = n * plan.parts; row < (n + 1) * plan.parts; ++row)
      by_xhat += p.table[row * C + c], sum += p.table[(rows + row) * C + c];
    p.sums[n * C + c] = by_xhat, p.sums[NC + n * C + c] = sum;
    if (scaled) inner[0] += p.weight(c) * by_xhat + p.bias(c) * sum;
  }
  if (!scaled) return;
  row_sum(inner, blockDim.x, scratch);
  const A kappa = inner[0] * gain / (A(C) * A(plan.S)), count = A(plan.S);
  if (threadIdx.x == 0) p.kappa[n] = kappa;
  for (int64_t c = first + threadIdx.x; c < last; c += blockDim.x) {  // each thread its own entries once more
    const A w = p.weight(c), b = p.bias(c), by = kappa * gain * count;
    const Xhat<T> xhat = xhat_of(p, n * C + c);
    A &by_xhat = p.sums[n * C + c], &sum = p.sums[NC + n * C + c];
    by_xhat = (by_xhat - by * (w * xhat.square + b * xhat.mean)) * gain;
    sum = (sum - by * (w * xhat.mean + b)) * gain;
  }
}

// What a sample does to the accumulators: y += by - a * y, and one += k - f * y - p * one.
template <typename A>
struct ControlEffect {
  A a, by, f, k, p;
};

// The accumulators that it meets.
template <typename A>
struct ControlMet {
  A y, one;
};

// The first until the sample was taken, then the second.
template <typename A>
union ControlItem {
  ControlEffect<A> effect;
  ControlMet<A> met;
};

// The control process, and the coefficients of dx.
template <typename T>
__global__ void __launch_bounds__(kOnlineChannels* kOnlineWarps) online_control_kernel(const OnlineBackward<T> p) {
  using A = acc_t<T>;
  using Item = ControlItem<A>;
  __shared__ Item items[kOnlineSamples][kOnlineChannels];
  const bool controlled = p.epsilon_y != nullptr, scaled = p.tables.gain != nullptr;
  const OnlineWalk<Item> walk(p.plan, controlled);
  const int64_t c = walk.channel, C = p.plan.C, NC = p.plan.N * C;
  const A w = p.weight(c), b = p.bias(c), share = w / A(p.plan.S);
  A y = controlled ? p.epsilon_y[c] : A(0), one = controlled ? p.epsilon_1[c] : A(0);
  const auto most = [&](A square) { return p.stable && !(p.p < 1 / square) ? 1 / square : p.p; };
  const auto load = [&](int64_t n) {
    if (!controlled) return Item{};
    const int64_t at = n * C + c;
    const Xhat<T> xhat = xhat_of(p, at);
    const A g_xhat = p.sums[at] * share, g = p.sums[NC + at] * share, rstd = p.tables.rstd[at],
            by_xhat = most(xhat.square);
    if (!is_finite(xhat.square) || !is_finite(g) || !is_finite(g_xhat)) return Item{};
    return Item{{by_xhat * xhat.square, g_xhat, by_xhat * xhat.mean * rstd, g * rstd, p.p}};
  };
  const auto step = [&](Item& item) {
    const ControlEffect<A> sample = item.effect;
    item.met = {y, one};
    one += sample.k - sample.f * y - sample.p * one;
    y += sample.by - sample.a * y;
  };
  walk.each(items, load, step, [&](int64_t n, const Item& item) {
    const ControlMet<A>& met = item.met;
    const int64_t at = n * C + c;
    const A rstd = p.tables.rstd[at], gain = scaled ? p.tables.gain[n] : A(1);
    const A scaling = scaled ? w * gain * gain * p.kappa[n] : A(0);
    const A by_xhat = controlled ? most(xhat_of(p, at).square) * met.y : A(0);
    p.coefficients[at] = w * gain * rstd;
    p.coefficients[NC + at] = -(w * scaling + by_xhat) * rstd * rstd;
    p.coefficients[2 * NC + at] = -b * scaling * rstd - p.p * met.one;
  });
  if (controlled && walk.live && threadIdx.y == 0) p.new_epsilon_y[c] = y, p.new_epsilon_1[c] = one;
}

// ---- host ----

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void online_norm_backward(OnlineBackward<T> p, LineSums<T> sums, const Device& device, Workspace workspace) {
  const Plan plan = p.plan = online_plan<T>(p.plan);
  const int64_t N = plan.N, C = plan.C;
  const bool scaled = p.tables.gain != nullptr, controlled = p.epsilon_y != nullptr;
  p.table = workspace(2 * plan.rows() * C), p.sums = workspace(2 * N * C);
  p.coefficients = workspace(3 * N * C), p.kappa = scaled ? workspace(N) : nullptr;
  channels_tables_sums(p, device);
  const int64_t chunks = scaled ? 1 : ceil_div<int64_t>(C, kChannelThreads);
  launch(online_samples_kernel<T>, dim3(N * chunks), dim3(kChannelThreads), device, p);
  sums.partial = p.sums, sums.P = N;
  if (sums.dweight != nullptr || sums.dbias != nullptr) line_sums(sums, device);
  launch_walk(online_control_kernel<T>, p, controlled, device);
  p.about = p.tables.mean, p.by_du = p.coefficients, p.power = 2;
  if (scaled || controlled) p.by_x = p.coefficients + N * C, p.c = p.coefficients + 2 * N * C;
  channels_tables_dx(p, device);
}

}  // namespace normkernels::cuda
