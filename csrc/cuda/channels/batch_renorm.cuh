// Batch renorm (Ioffe 2017): batch norm under a corrected affine of xhat, scale = w * r and shift = b + w * d.
#pragma once

#include "cuda/channels/resident_backward.cuh"
#include "cuda/channels/resident_forward.cuh"

namespace normkernels::cuda {

template <typename T>
inline constexpr bool kFloatTables = std::is_same_v<acc_t<T>, float>;

template <typename A>
struct Corrected {
  A r, d;
  __device__ A scale(A w) const { return w * r; }
  __device__ A shift(A w, A b) const { return w * d + b; }
};

template <typename T>
struct BatchRenormForward : ChannelsForward<T> {
  using A = acc_t<T>;
  const A *running_mean, *running_std, *r_max, *d_max;  // (C,), (C,), and two scalars
  A *r, *d;                                             // (C,)

  // takes statistics of the batch to the running ones, as far as it may
  __device__ Corrected<A> correction(int64_t channel, A mean, A var) const {
    const A std = sqrt(var + this->eps), running = running_std[channel];
    return {clamp(std / running, 1 / *r_max, *r_max), clamp((mean - running_mean[channel]) / running, -*d_max, *d_max)};
  }
  __device__ void keep(int64_t channel, A mean_of, A var_of, const Corrected<A>& by) const {
    this->mean[channel] = mean_of, this->var[channel] = var_of, r[channel] = by.r, d[channel] = by.d;
  }
};

// The affine of xhat, (2, C): scale and shift.
template <typename T>
struct CorrectedAffine {
  Parameter weight, bias;
  const acc_t<T>*r, *d;
  acc_t<T>* table;
  int64_t C;

  __device__ void write(int64_t c, const Corrected<acc_t<T>>& by) const {
    const acc_t<T> w = load_value<T>(weight, c, 0, 1), b = load_value<T>(bias, c, 0, 0);
    table[c] = by.scale(w), table[C + c] = by.shift(w, b);
  }
  void use(Affine<T>& affine) const {
    affine.weight = {table, kFloatTables<T>}, affine.bias = {table + C, kFloatTables<T>};
  }
};

template <typename T>
struct RenormRule {
  BatchRenormForward<T> fwd;
  CorrectedAffine<T> affine;
};

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) batch_renorm_correction_kernel(const RenormRule<T> p) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= p.affine.C) return;
  const acc_t<T> mean = p.fwd.mean[c], var = p.fwd.var[c];
  const auto by = p.fwd.correction(c, mean, var);
  p.fwd.keep(c, mean, var, by);
  p.affine.write(c, by);
}

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) batch_renorm_affine_kernel(const CorrectedAffine<T> p) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c < p.C) p.write(c, {p.r[c], p.d[c]});
}

template <typename T>
struct RenormGradients {
  const acc_t<T>*r, *d, *of_affine;  // (2, C): of scale and of shift
  LineSums<T> sums;                  // where dweight and dbias go
};

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) batch_renorm_gradients_kernel(const RenormGradients<T> p) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, C = p.sums.N;
  if (c >= C) return;
  const acc_t<T> of_scale = p.of_affine[c], of_shift = p.of_affine[C + c];
  p.sums.write(c, 0, p.r[c] * of_scale + p.d[c] * of_shift);
  p.sums.write(c, 1, of_shift);
}

// ---- host ----

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void batch_renorm_forward(const BatchRenormForward<T>& p, const Device& device, Workspace workspace) {
  if (resident_channels_forward<T>(p, device)) return;
  const int64_t C = p.plan.C;
  channels_moments<T>(p, device, workspace);
  const RenormRule<T> rule{p, {p.affine.weight, p.affine.bias, p.r, p.d, workspace(2 * C), C}};
  launch_channels(batch_renorm_correction_kernel<T>, rule, C, device);
  ChannelsForward<T> apply = p;
  rule.affine.use(apply.affine);
  channels_apply(apply, device);
}

template <typename T, typename Workspace>
void batch_renorm_backward(ChannelsBackward<T> p, const acc_t<T>* r, const acc_t<T>* d, const LineSums<T>& sums,
                           const Device& device, Workspace workspace) {
  const int64_t C = p.plan.C;
  const CorrectedAffine<T> rule{p.affine.weight, p.affine.bias, r, d, workspace(2 * C), C};
  launch_channels(batch_renorm_affine_kernel<T>, rule, C, device);
  rule.use(p.affine);
  const bool wanted = sums.dweight != nullptr || sums.dbias != nullptr;
  acc_t<T>* of_affine = wanted ? workspace(2 * C) : nullptr;
  p.sums = {nullptr, of_affine, wanted ? of_affine + C : nullptr, kFloatTables<T>, kFloatTables<T>, 0, C};
  channels_backward(p, true, device, workspace);
  if (wanted) launch_channels(batch_renorm_gradients_kernel<T>, RenormGradients<T>{r, d, of_affine, sums}, C, device);
}

}  // namespace normkernels::cuda
