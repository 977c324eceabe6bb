// Batch Renormalization: batch norm's sweeps, with a corrected affine between the statistics and y.
#include "checks/channel_rules.h"
#include "cpu/channels/norm_backward.h"
#include "cpu/channels/rule_tiles.h"

namespace normkernels {
void batch_renorm_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                      const OptionalTensor& bias, const Tensor& running_mean, const Tensor& running_std,
                      const Tensor& r_max, const Tensor& d_max, const Tensor& y, const Tensor& mean, const Tensor& var,
                      const Tensor& r, const Tensor& d, double eps, const std::string& name, double slope, bool last) {
  if (!check::batch_renorm_fwd(x, skip, weight, bias, running_mean, running_std, r_max, d_max, y, mean, var, r, d,
                               last))
    return;
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&]<class T>(const Channels<T>& channels) {
    using C = compute_t<T>;
    const int64_t n = mean.numel();
    Scratch<C> scale(n), shift(n);
    const Correction<C> correction = {.running_mean = pointer<C>(running_mean),
                                      .running_std = pointer<C>(running_std),
                                      .weight = channels.affine.weight,
                                      .bias = channels.affine.bias,
                                      .r_max = *pointer<C>(r_max),
                                      .d_max = *pointer<C>(d_max),
                                      .r = pointer<C>(r),
                                      .d = pointer<C>(d),
                                      .scale = scale.data(),
                                      .shift = shift.data()};
    Forward<T> a{.of = channels, .y = pointer<T>(y)};
    a.of.affine.weight = scale.data();
    a.of.affine.bias = shift.data();
    a.rule = [&](int64_t first, int64_t count) { correct_tile(a.of.mean, a.of.rstd, correction, first, count); };
    forward(a, last);
  });
}

void batch_renorm_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                      const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& r,
                      const Tensor& d, const Tensor& dx, const OptionalTensor& dskip, const OptionalTensor& dweight,
                      const OptionalTensor& dbias, double eps, const std::string& name, double slope, bool last) {
  if (!check::batch_renorm_bwd(dy, x, skip, weight, bias, mean, var, r, d, dx, dskip, dweight, dbias, last)) return;
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&]<class T>(const Channels<T>& channels) {
    using C = compute_t<T>;
    const int64_t n = mean.numel();
    const C *from_r = pointer<C>(r), *from_d = pointer<C>(d);
    Scratch<C> scale(n), shift(n);
    const Correction<C> correction = {.weight = channels.affine.weight,
                                      .bias = channels.affine.bias,
                                      .r = pointer<C>(r),
                                      .d = pointer<C>(d),
                                      .scale = scale.data(),
                                      .shift = shift.data()};
    corrected_tile(correction, 0, n);
    Scratch<C> of_scale(n), of_shift(n);
    Backward<T> a{.of = channels,
                  .dy = pointer<T>(dy),
                  .dx = pointer<T>(dx),
                  .dskip = pointer<T>(dskip),
                  .dweight = of_scale.data(),
                  .dbias = of_shift.data()};
    a.of.affine.weight = scale.data();
    a.of.affine.bias = shift.data();
    backward(a, last);
    for (int64_t c = 0; c < n; c++) of_scale[c] = from_r[c] * of_scale[c] + from_d[c] * of_shift[c];
    store_values(of_scale, dweight);
    store_values(of_shift, dbias);
  });
}

NK_CPU(batch_renorm_fwd, batch_renorm_fwd)
NK_CPU(batch_renorm_bwd, batch_renorm_bwd)

}  // namespace normkernels
