// Layer norm over rows whose units lie a stride apart: dim 1 of a contiguous (B, N, S).
#include "checks/rows.h"
#include "cpu/base/gradient_table.h"
#include "cpu/strided_rows/backward.h"

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
  const GivenAffine given = {weight, bias, weight_offset, name, slope};
  with_affine(x, "layer_norm_2d_fwd", given, [&]<class T>(T, const Affine<compute_t<T>>& affine) {
    using C = compute_t<T>;
    forward(StridedRowsForward<T>{.slices = slices<T>(x),
                                  .x = pointer<T>(x),
                                  .residual = pointer<T>(residual),
                                  .affine = affine,
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
  const GivenAffine given = {weight, bias, weight_offset, name, slope};
  with_affine(x, "layer_norm_2d_bwd", given, [&]<class T>(T, const Affine<compute_t<T>>& affine) {
    using C = compute_t<T>;
    const StridedRowsBackward<T> a{.slices = slices<T>(x),
                                   .dy = pointer<T>(dy),
                                   .dsummed = pointer<T>(dsummed),
                                   .x = pointer<T>(x),
                                   .affine = affine,
                                   .mean = pointer<C>(mean),
                                   .rstd = pointer<C>(rstd),
                                   .dx = pointer<T>(dx)};
    backward_in_blocks(a, a.slices.N, dweight, dbias);
  });
}

}  // namespace

NK_CPU(layer_norm_2d_fwd, layer_norm_2d_fwd)
NK_CPU(layer_norm_2d_bwd, layer_norm_2d_bwd)

}  // namespace normkernels
