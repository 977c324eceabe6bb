// RMS norm over rows (Zhang & Sennrich 2019, arXiv:1910.07467): the CPU kernels.
#include "checks/rows.h"
#include "cpu/base/gradient_table.h"
#include "cpu/rows/backward.h"
#include "schemas.h"

namespace normkernels {
namespace {

void rms_norm_fwd(const Tensor& x, const OptionalTensor& residual, const OptionalTensor& weight, const Tensor& y,
                  const OptionalTensor& summed, const Tensor& rstd, double eps, double weight_offset,
                  const std::string& name, double slope) {
  if (!check::rows_fwd("rms_norm_fwd", x, residual, weight, std::nullopt, y, summed, std::nullopt, rstd)) return;
  dispatch(x, "rms_norm_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Parameter<C> w(weight, weight_offset);
    forward(RowsForward<T>{.M = x.size(0),
                           .N = x.size(1),
                           .x = pointer<T>(x),
                           .x_stride = x.stride(0),
                           .residual = pointer<T>(residual),
                           .residual_stride = row_stride(residual),
                           .affine = affine(w, Parameter<C>(), name, slope),
                           .y = pointer<T>(y),
                           .summed = pointer<T>(summed),
                           .mean = nullptr,
                           .rstd = pointer<C>(rstd),
                           .eps = eps});
  });
}

void rms_norm_bwd(const Tensor& dy, const OptionalTensor& dsummed, const Tensor& x, const OptionalTensor& weight,
                  const Tensor& rstd, const Tensor& dx, const OptionalTensor& dweight, double weight_offset,
                  const std::string& name, double slope) {
  if (!check::rows_bwd("rms_norm_bwd", dy, dsummed, x, weight, std::nullopt, std::nullopt, rstd, dx, dweight,
                       std::nullopt))
    return;
  dispatch(x, "rms_norm_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Parameter<C> w(weight, weight_offset);
    RowsBackward<T> a{.M = x.size(0),
                      .N = x.size(1),
                      .dy = pointer<T>(dy),
                      .dy_stride = dy.stride(0),
                      .dsummed = pointer<T>(dsummed),
                      .dsummed_stride = row_stride(dsummed),
                      .x = pointer<T>(x),
                      .x_stride = x.stride(0),
                      .affine = affine(w, Parameter<C>(), name, slope),
                      .mean = nullptr,
                      .rstd = pointer<C>(rstd),
                      .dx = pointer<T>(dx)};
    GradientTable<C> dw(dweight, a.blocks(), a.N);
    a.dweight = dw.data();
    backward(a);
    dw.finish();
  });
}

}  // namespace
}  // namespace normkernels

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def(normkernels::schema::rms_norm_fwd);
  m.def(normkernels::schema::rms_norm_bwd);
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("rms_norm_fwd", TORCH_BOX(&normkernels::rms_norm_fwd));
  m.impl("rms_norm_bwd", TORCH_BOX(&normkernels::rms_norm_bwd));
}
