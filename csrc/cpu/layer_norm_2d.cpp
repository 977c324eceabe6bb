// Layer norm over rows whose units lie a stride apart: dim 1 of a contiguous (B, N, S).
#include "checks/rows.h"
#include "cpu/base/gradient_table.h"
#include "cpu/strided_rows/backward.h"
#include "schemas.h"

namespace normkernels {
namespace {

template <class T>
Slices slices(const Tensor& x) {
  return {.B = x.size(0), .N = x.size(1), .S = x.size(2), .width = strip_width(x.size(1), sizeof(T))};
}

void layer_norm_2d_fwd(const Tensor& x, const OptionalTensor& residual, const OptionalTensor& weight,
                       const OptionalTensor& bias, const Tensor& y, const OptionalTensor& summed, const Tensor& mean,
                       const Tensor& rstd, double eps, double weight_offset, const std::string& name, double slope) {
  if (!check::strided_rows_fwd("layer_norm_2d_fwd", x, residual, weight, bias, y, summed, mean, rstd)) return;
  dispatch(x, "layer_norm_2d_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Parameter<C> w(weight, weight_offset), b(bias, 0);
    forward(StridedRowsForward<T>{.slices = slices<T>(x),
                                  .x = pointer<T>(x),
                                  .residual = pointer<T>(residual),
                                  .affine = affine(w, b, name, slope),
                                  .y = pointer<T>(y),
                                  .summed = pointer<T>(summed),
                                  .mean = pointer<C>(mean),
                                  .rstd = pointer<C>(rstd),
                                  .eps = eps});
  });
}

void layer_norm_2d_bwd(const Tensor& dy, const OptionalTensor& dsummed, const Tensor& x, const OptionalTensor& weight,
                       const OptionalTensor& bias, const Tensor& mean, const Tensor& rstd, const Tensor& dx,
                       const OptionalTensor& dweight, const OptionalTensor& dbias, double weight_offset,
                       const std::string& name, double slope) {
  if (!check::strided_rows_bwd("layer_norm_2d_bwd", dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias))
    return;
  dispatch(x, "layer_norm_2d_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Parameter<C> w(weight, weight_offset), b(bias, 0);
    StridedRowsBackward<T> a{.slices = slices<T>(x),
                             .dy = pointer<T>(dy),
                             .dsummed = pointer<T>(dsummed),
                             .x = pointer<T>(x),
                             .affine = affine(w, b, name, slope),
                             .mean = pointer<C>(mean),
                             .rstd = pointer<C>(rstd),
                             .dx = pointer<T>(dx)};
    GradientTable<C> dw(dweight, a.blocks(), a.slices.N), db(dbias, a.blocks(), a.slices.N);
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
  m.def(normkernels::schema::layer_norm_2d_fwd);
  m.def(normkernels::schema::layer_norm_2d_bwd);
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("layer_norm_2d_fwd", TORCH_BOX(&normkernels::layer_norm_2d_fwd));
  m.impl("layer_norm_2d_bwd", TORCH_BOX(&normkernels::layer_norm_2d_bwd));
}
