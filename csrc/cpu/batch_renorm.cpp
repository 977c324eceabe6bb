// Batch Renormalization: batch norm's sweeps, with a corrected affine between the statistics and y.
#include "channel_norm.h"

namespace normkernels {
namespace {

// Scale and shift of xhat: weight * (xhat * r + d) + bias. (C,) each.
template <class C>
struct Corrected {
  std::vector<C> scale, shift;

  explicit Corrected(int64_t n) : scale(n), shift(n) {}
  void set(int64_t c, C weight, C bias, C r, C d) {
    scale[c] = weight * r;
    shift[c] = weight * d + bias;
  }
};

// v within [low, high]; NaN stays
template <class C>
C clip(C v, C low, C high) {
  return v < low ? low : (v > high ? high : v);
}

}  // namespace

void batch_renorm_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                      const OptionalTensor& bias, const Tensor& running_mean, const Tensor& running_std,
                      const Tensor& r_max, const Tensor& d_max, const Tensor& y, const Tensor& mean, const Tensor& var,
                      const Tensor& r, const Tensor& d, double eps, const std::string& name, double slope, bool last) {
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    using C = compute_t<T>;
    Corrected<C> corrected(mean.numel());
    Forward<T> a{channels, pointer<T>(y), true};
    a.affine.weight = corrected.scale.data(), a.affine.bias = corrected.shift.data();
    const C *old_mean = pointer<C>(running_mean), *old_std = pointer<C>(running_std);
    const C most_r = *pointer<C>(r_max), most_d = *pointer<C>(d_max);
    C *to_r = pointer<C>(r), *to_d = pointer<C>(d);
    a.rule = [&](int64_t first, int64_t count) {
      for (int64_t c = first; c < first + count; c++) {
        to_r[c] = clip(std::sqrt(a.var[c] + static_cast<C>(eps)) / old_std[c], 1 / most_r, most_r);
        to_d[c] = clip((a.mean[c] - old_mean[c]) / old_std[c], -most_d, most_d);
        corrected.set(c, channels.weight(c), channels.bias(c), to_r[c], to_d[c]);
      }
    };
    forward(a, last);
  });
}

void batch_renorm_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                      const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& r,
                      const Tensor& d, const Tensor& dx, const OptionalTensor& dskip, const OptionalTensor& dweight,
                      const OptionalTensor& dbias, double eps, const std::string& name, double slope, bool last) {
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    using C = compute_t<T>;
    const int64_t n = mean.numel();
    const C *from_r = pointer<C>(r), *from_d = pointer<C>(d);
    Corrected<C> corrected(n);
    for (int64_t c = 0; c < n; c++) corrected.set(c, channels.weight(c), channels.bias(c), from_r[c], from_d[c]);
    std::vector<C> of_scale(n), of_shift(n);
    Backward<T> a{channels, pointer<T>(dy), pointer<T>(dx), pointer<T>(dskip), true, nullptr, nullptr,
                  of_scale.data(), of_shift.data()};
    a.affine.weight = corrected.scale.data(), a.affine.bias = corrected.shift.data();
    backward(a, last);
    for (int64_t c = 0; c < n; c++) of_scale[c] = from_r[c] * of_scale[c] + from_d[c] * of_shift[c];
    store_values(of_scale, dweight);
    store_values(of_shift, dbias);
  });
}

}  // namespace normkernels

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def(
      "batch_renorm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_std, "
      "Tensor r_max, Tensor d_max, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) var, Tensor(d!) r, Tensor(e!) d, "
      "float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "batch_renorm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
      "Tensor r, Tensor d, Tensor(a!) dx, Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, float eps, "
      "str activation, float slope, bool channels_last) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("batch_renorm_fwd", TORCH_BOX(&normkernels::batch_renorm_fwd));
  m.impl("batch_renorm_bwd", TORCH_BOX(&normkernels::batch_renorm_bwd));
}
