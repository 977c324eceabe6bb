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
    forward(RowsForward<T>{x.size(0),
                           x.size(1),
                           pointer<T>(x),
                           x.stride(0),
                           pointer<T>(residual),
                           row_stride(residual),
                           {w.data(), nullptr, activation(name), static_cast<C>(slope)},
                           pointer<T>(y),
                           pointer<T>(summed),
                           nullptr,
                           pointer<C>(rstd),
                           eps});
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
    RowsBackward<T> a{x.size(0),
                      x.size(1),
                      pointer<T>(dy),
                      dy.stride(0),
                      pointer<T>(dsummed),
                      row_stride(dsummed),
                      pointer<T>(x),
                      x.stride(0),
                      {w.data(), nullptr, activation(name), static_cast<C>(slope)},
                      nullptr,
                      pointer<C>(rstd),
                      pointer<T>(dx),
                      nullptr,
                      nullptr};
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
