// Layer norm over rows (Ba, Kiros & Hinton 2016, arXiv:1607.06450): the CPU kernels.
#include "checks/rows.h"
#include "cpu/base/gradient_table.h"
#include "cpu/rows/backward.h"
#include "schemas.h"

namespace normkernels {
namespace {

void layer_norm_fwd(const Tensor& x, const OptionalTensor& residual, const OptionalTensor& weight,
                    const OptionalTensor& bias, const Tensor& y, const OptionalTensor& summed, const Tensor& mean,
                    const Tensor& rstd, double eps, double weight_offset, const std::string& name, double slope) {
  if (!check::rows_fwd("layer_norm_fwd", x, residual, weight, bias, y, summed, mean, rstd)) return;
  dispatch(x, "layer_norm_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Parameter<C> w(weight, weight_offset), b(bias, 0);
    forward(RowsForward<T>{.M = x.size(0),
                           .N = x.size(1),
                           .x = pointer<T>(x),
                           .x_stride = x.stride(0),
                           .residual = pointer<T>(residual),
                           .residual_stride = row_stride(residual),
                           .affine = affine(w, b, name, slope),
                           .y = pointer<T>(y),
                           .summed = pointer<T>(summed),
                           .mean = pointer<C>(mean),
                           .rstd = pointer<C>(rstd),
                           .eps = eps});
  });
}

void layer_norm_bwd(const Tensor& dy, const OptionalTensor& dsummed, const Tensor& x, const OptionalTensor& weight,
                    const OptionalTensor& bias, const Tensor& mean, const Tensor& rstd, const Tensor& dx,
                    const OptionalTensor& dweight, const OptionalTensor& dbias, double weight_offset,
                    const std::string& name, double slope) {
  if (!check::rows_bwd("layer_norm_bwd", dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias)) return;
  dispatch(x, "layer_norm_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Parameter<C> w(weight, weight_offset), b(bias, 0);
    RowsBackward<T> a{.M = x.size(0),
                      .N = x.size(1),
                      .dy = pointer<T>(dy),
                      .dy_stride = dy.stride(0),
                      .dsummed = pointer<T>(dsummed),
                      .dsummed_stride = row_stride(dsummed),
                      .x = pointer<T>(x),
                      .x_stride = x.stride(0),
                      .affine = affine(w, b, name, slope),
                      .mean = pointer<C>(mean),
                      .rstd = pointer<C>(rstd),
                      .dx = pointer<T>(dx)};
    GradientTable<C> dw(dweight, a.blocks(), a.N), db(dbias, a.blocks(), a.N);
    a.dweight = dw.data();
    a.dbias = db.data();
    backward(a);
    dw.finish();
    db.finish();
  });
}

}  // namespace
}  // namespace normkernels

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def(normkernels::schema::layer_norm_fwd);
  m.def(normkernels::schema::layer_norm_bwd);
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("layer_norm_fwd", TORCH_BOX(&normkernels::layer_norm_fwd));
  m.impl("layer_norm_bwd", TORCH_BOX(&normkernels::layer_norm_bwd));
}
