// Backward of the epilogue in one pass: du = scale * dy * act', from y where y tells act', else from u; dbias and
// prelu's dslope are sums over images and positions.
#pragma once

#include "cuda/normprop/normprop.cuh"

namespace normkernels::cuda {

// z <- f'(u) from z = f(u), of those whose output tells it
template <typename A, int V>
__device__ void differentiate_output(A (&z)[V], Activation activation) {
  const auto each = [&](auto f) {
#pragma unroll
    for (int k = 0; k < V; ++k) z[k] = f(z[k]);
  };
  const auto positive = [](A v) { return v < 0 ? A(0) : v; };  // a NaN stays a NaN
  using Act = Activation;
  // clang-format off: one line each
  switch (activation) {
    case Act::kTanh: return each([=](A f) { return positive(A(1) - f * f); });
    case Act::kSigmoid: return each([=](A f) { return positive(f * (A(1) - f)); });
    case Act::kElu: return each([=](A f) { return f > 0 ? A(1) : positive(f + A(1)); });
    case Act::kSelu: return each([=](A f) { return f > 0 ? A(kSeluScale) : positive(f + A(kSeluScale * kSeluAlpha)); });
    case Act::kSoftplus: return each([=](A f) { return -expm1(-positive(f)); });
    default: return each([=](A f) { return positive(A(1) - abs(f)) * positive(A(1) - abs(f)); });  // softsign
  }
  // clang-format on
}

template <typename T>
struct NormpropBackward {
  Plan plan;
  const T *dy, *saved;  // saved: y with from_output, else u
  Parameter bias, slope;
  Epilogue<acc_t<T>> epilogue;
  T* du;
  acc_t<T>* table;  // of each part: sums of du, and for prelu's slope
  bool slope_wanted;
};

// f <- act' from what was saved
template <bool ANY, typename T, bool LAST, bool PACKED, bool PRELU>
__device__ void differentiate_saved(const Epilogue<acc_t<T>>& e, const Channels<T, LAST, PACKED, PRELU>& of,
                                    Wide<T>& f) {
  using A = acc_t<T>;
  if (ANY && !e.pieces) {
    if (!e.from_output) return differentiate(f.v, e.activation, e.leak);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) f.v[k] = (f.v[k] - e.shift) * e.unscale;
    return differentiate_output(f.v, e.activation);
  }
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) {
    const A v = f.v[k];
    const bool inside = e.from_output ? v >= e.low && v <= e.high : v > 0;
    f.v[k] = inside ? e.inner : of.outer.v[k];
  }
}

// c1 dy/da of y = (prelu(z) - c2) / c1, those through c1 and c2 of a included
template <typename T, bool LAST, bool PACKED, bool PRELU>
__device__ acc_t<T> slope_gradient(const Channels<T, LAST, PACKED, PRELU>& of, int k, acc_t<T> z) {
  using A = acc_t<T>;
  const A a = of.outer.v[k], scale = of.scale.v[k], y = (z > 0 ? z : a * z) * scale + of.shift.v[k];
  return (z > 0 ? A(0) : z) + A(kDensityAtZero) - y * (a + (A(1) - a) * A(kInversePi)) * (A(0.5) * scale);
}

template <typename T, bool LAST, bool PACKED, bool ANY, bool PRELU>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1)
    normprop_backward_kernel(const NormpropBackward<T> p) {
  const Epilogue<acc_t<T>>& e = p.epilogue;
  const Walk<T, LAST, PACKED> walk(p.plan, blockIdx.x);
  const Channels<T, LAST, PACKED, PRELU> of(walk, e, p.bias, p.slope);
  Wide<T> sum{}, sum_slope{};
  walk.template sweep<!ANY>({p.dy, p.saved}, [&](int i, const Pack<T>(&packs)[2]) {
    const Wide<T> saved = widen<T>(packs[1]);
    Wide<T> du = widen<T>(packs[0]), f = Wide<T>::of([&](int k) { return saved.v[k] + of.bias.v[k]; });
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) du.v[k] *= of.scale.v[k];
    if (PRELU && p.slope_wanted)
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k)
        if (walk.holds(i, k)) sum_slope.v[k] += du.v[k] * slope_gradient(of, k, f.v[k]);
    differentiate_saved<ANY>(e, of, f);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      du.v[k] *= f.v[k];
      if (walk.holds(i, k)) sum.v[k] += du.v[k];
    }
    walk.store(p.du, i, du);
  });
  if (p.table == nullptr) return;
  walk.record(p.table, sum_threads<0>(walk, sum));
  if (PRELU && p.slope_wanted) walk.record(p.table + p.plan.rows() * p.plan.C, sum_threads<1>(walk, sum_slope));
}

// ---- host ----

// sums: dbias and, second, dslope; workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void normprop_backward(NormpropBackward<T> p, LineSums<T> sums, const Device& device, Workspace workspace) {
  p.slope_wanted = sums.dbias != nullptr;
  const bool wanted = sums.dweight != nullptr || p.slope_wanted;
  sums.P = p.plan.rows();
  if (wanted) sums.partial = p.table = workspace((1 + p.slope_wanted) * sums.P * p.plan.C);
  with_epilogue<T>(p, [&](auto last, auto packed, auto any, auto prelu) {
    launch_sweep<T>(normprop_backward_kernel<T, last, packed, any, prelu>, p, device);
  });
  if (wanted) line_sums(sums, device);
}

}  // namespace normkernels::cuda
