// Online Normalization: from tensors to the CPU kernels.
#include "checks/channels.h"
#include "cpu/base/tensors.h"
#include "cpu/online/backward.h"

namespace normkernels {
namespace {

// A parameter, or the value it stands for where it is absent.
template <class C>
Scratch<C> filled(const OptionalTensor& t, int64_t n, C value) {
  const Parameter<C> given(t, 0);
  return given.data() ? Scratch<C>(given.data(), given.data() + n) : Scratch<C>(n, value);
}

template <class C>
Scratch<double> doubles(const OptionalTensor& t, int64_t n) {
  const C* from = pointer<C>(t);
  return from ? Scratch<double>(from, from + n) : Scratch<double>(n);
}

struct Tables {
  const Tensor &mean, &rstd;
  const OptionalTensor &xhat, &square, &gain;
};

template <class T>
Samples<T> samples(const Tensor& x, const OptionalTensor& skip, const Scratch<compute_t<T>>& weight,
                   const Scratch<compute_t<T>>& bias, const Tables& t, double eps, double clamp,
                   const std::string& name, double slope, bool last) {
  using C = compute_t<T>;
  const int64_t N = x.size(0), width = x.size(last ? 2 : 1), S = x.size(last ? 1 : 2);
  const Channels<T> of = {.grid = {.N = N, .C = width, .S = S, .B = N, .G = width},
                          .x = pointer<T>(x),
                          .skip = pointer<T>(skip),
                          .affine = {.weight = weight.data(),
                                     .bias = bias.data(),
                                     .activation = activation(name),
                                     .slope = static_cast<C>(slope)},
                          .mean = pointer<C>(t.mean),
                          .var = nullptr,
                          .rstd = pointer<C>(t.rstd),
                          .eps = eps};
  return {.of = of,
          .xhat = pointer<C>(t.xhat),
          .square = pointer<C>(t.square),
          .gain = pointer<C>(t.gain),
          .clamp = static_cast<C>(clamp),
          .last = last || S == 1};
}

}  // namespace

void online_norm_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                     const OptionalTensor& bias, const Tensor& running_mean, const Tensor& running_var,
                     const OptionalTensor& rates, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                     const OptionalTensor& xhat_mean, const OptionalTensor& xhat_square, const OptionalTensor& gain,
                     const OptionalTensor& new_mean, const OptionalTensor& new_var, double eps, double ls_eps,
                     double clamp, const std::string& activation, double slope, bool last) {
  if (!check::online_norm_fwd(x, skip, weight, bias, running_mean, running_var, rates, y, mean, rstd, xhat_mean,
                              xhat_square, gain, new_mean, new_var, last))
    return;
  dispatch(x, "online_norm", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t n = running_mean.numel();
    const auto w = filled<C>(weight, n, 1), b = filled<C>(bias, n, 0);
    auto state_mean = doubles<C>(running_mean, n), state_var = doubles<C>(running_var, n);
    const Tables tables = {mean, rstd, xhat_mean, xhat_square, gain};
    online_forward(OnlineForward<T>{.samples = samples<T>(x, skip, w, b, tables, eps, clamp, activation, slope, last),
                                    .y = pointer<T>(y),
                                    .rates = pointer<double>(rates),
                                    .state_mean = state_mean.data(),
                                    .state_var = state_var.data(),
                                    .ls_eps = ls_eps});
    store_values(state_mean, new_mean);
    store_values(state_var, new_var);
  });
}

void online_norm_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                     const OptionalTensor& bias, const Tensor& mean, const Tensor& rstd,
                     const OptionalTensor& xhat_mean, const OptionalTensor& xhat_square, const OptionalTensor& gain,
                     const OptionalTensor& epsilon_y, const OptionalTensor& epsilon_1, const Tensor& dx,
                     const OptionalTensor& dskip, const OptionalTensor& dweight, const OptionalTensor& dbias,
                     const OptionalTensor& new_epsilon_y, const OptionalTensor& new_epsilon_1, double alpha,
                     bool stable, double clamp, const std::string& activation, double slope, bool last) {
  if (!check::online_norm_bwd(dy, x, skip, weight, bias, mean, rstd, xhat_mean, xhat_square, gain, epsilon_y, epsilon_1,
                              dx, dskip, dweight, dbias, new_epsilon_y, new_epsilon_1, last))
    return;
  dispatch(x, "online_norm", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t n = x.size(last ? 2 : 1);
    const auto w = filled<C>(weight, n, 1), b = filled<C>(bias, n, 0);
    auto e = doubles<C>(epsilon_y, n), u = doubles<C>(epsilon_1, n);
    Scratch<double> dw(n), db(n);
    const Tables tables = {mean, rstd, xhat_mean, xhat_square, gain};
    auto own = samples<T>(x, skip, w, b, tables, 0, clamp, activation, slope, last);
    // Of constant statistics means of xhat are not kept, and zeros in their place change nothing.
    Scratch<C> zeros(own.xhat || own.single() ? 0 : mean.numel());
    if (!own.xhat && !own.single()) own.xhat = own.square = zeros.data();
    own.scales = !own.of.plain() || own.clamped();
    const Backward<T> sweep{.of = own.of, .dy = pointer<T>(dy), .dx = pointer<T>(dx), .dskip = pointer<T>(dskip)};
    online_backward(OnlineBackward<T>{
        .samples = own,
        .sweep = sweep,
        .control = {.epsilon_y = e.data(), .epsilon_1 = u.data(), .dweight = dw.data(), .dbias = db.data()},
        .p = static_cast<C>(epsilon_y ? 1 - alpha : 0),
        .stable = stable});
    store_values(dw, dweight);
    store_values(db, dbias);
    store_values(e, new_epsilon_y);
    store_values(u, new_epsilon_1);
  });
}

NK_CPU(online_norm_fwd, online_norm_fwd)
NK_CPU(online_norm_bwd, online_norm_bwd)

}  // namespace normkernels
