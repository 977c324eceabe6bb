// From tensors to the sweeps of the row family.
#pragma once

#include "checks/rows.h"
#include "cpu/base/gradient_table.h"
#include "cpu/rows/backward.h"

namespace normkernels {

// mean: none without centring
inline void rows_fwd(const char* op, const Tensor& x, const OptionalTensor& residual, const GivenAffine& given,
                     const OptionalTensor& gate, const Tensor& y, const OptionalTensor& summed,
                     const OptionalTensor& mean, const Tensor& rstd, double eps) {
  if (!check::rows_fwd(op, x, residual, given.weight, given.bias, gate, y, summed, mean, rstd)) return;
  with_affine(x, op, given, [&]<class T>(T, const Affine<compute_t<T>>& affine) {
    using C = compute_t<T>;
    forward(RowsForward<T>{.M = y.size(0),
                           .N = y.size(1),
                           .x = pointer<T>(x),
                           .x_stride = row_stride(x),
                           .x_runs = runs_of(x),
                           .residual = pointer<T>(residual),
                           .residual_stride = row_stride(residual),
                           .residual_runs = runs_of(residual),
                           .affine = affine,
                           .samples = check::samples(given.weight, given.bias),
                           .gate = pointer<T>(gate),
                           .gate_stride = row_stride(gate),
                           .gate_runs = runs_of(gate),
                           .y = pointer<T>(y),
                           .summed = pointer<T>(summed),
                           .mean = pointer<C>(mean),
                           .rstd = pointer<C>(rstd),
                           .eps = eps});
  });
}

inline void rows_bwd(const char* op, const Tensor& dy, const OptionalTensor& dsummed, const Tensor& x,
                     const GivenAffine& given, const OptionalTensor& gate, const OptionalTensor& mean,
                     const Tensor& rstd, const Tensor& dx, const OptionalTensor& dweight, const OptionalTensor& dbias,
                     const OptionalTensor& dgate) {
  if (!check::rows_bwd(op, dy, dsummed, x, given.weight, given.bias, gate, mean, rstd, dx, dweight, dbias, dgate))
    return;
  with_affine(x, op, given, [&]<class T>(T, const Affine<compute_t<T>>& affine) {
    using C = compute_t<T>;
    const RowsBackward<T> a{.M = dx.size(0),
                            .N = dx.size(1),
                            .dy = pointer<T>(dy),
                            .dy_stride = row_stride(dy),
                            .dy_runs = runs_of(dy),
                            .dsummed = pointer<T>(dsummed),
                            .dsummed_stride = row_stride(dsummed),
                            .dsummed_runs = runs_of(dsummed),
                            .x = pointer<T>(x),
                            .x_stride = row_stride(x),
                            .x_runs = runs_of(x),
                            .affine = affine,
                            .samples = check::samples(given.weight, given.bias),
                            .gate = pointer<T>(gate),
                            .gate_stride = row_stride(gate),
                            .gate_runs = runs_of(gate),
                            .mean = pointer<C>(mean),
                            .rstd = pointer<C>(rstd),
                            .dx = pointer<T>(dx),
                            .dgate = pointer<T>(dgate)};
    backward_in_blocks(a, a.samples * a.N, dweight, dbias);
  });
}

}  // namespace normkernels
