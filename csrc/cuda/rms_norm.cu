// RMS norm over rows: layer norm's kernels without the mean.
#include "checks/rows.h"
#include "cuda/base/tensors.h"
#include "cuda/rows/backward.cuh"
#include "cuda/rows/forward.cuh"

namespace normkernels::cuda {
namespace {

void rms_norm_fwd(Tensor x, Optional residual, Optional weight, Optional bias, Optional gate, Tensor y, Optional summed,
                  Tensor rstd, double eps, double weight_offset, std::string activation, double slope) {
  if (!check::rows_fwd("rms_norm_fwd", x, residual, weight, bias, gate, y, summed, std::nullopt, rstd)) return;
  x = as_rows(x), residual = as_rows(residual), gate = as_rows(gate);
  dispatch(x, [&]<typename T>(Session<T>& session) {
    RowsForward<T> p{};
    p.x = input<T>(x), p.x_stride = x.stride(0);
    p.residual = input<T>(residual), p.residual_stride = row_stride(residual);
    p.gate = input<T>(gate), p.gate_stride = row_stride(gate);
    p.affine = affine<T>(weight, bias, weight_offset, activation, slope);
    p.y = output<T>(y), p.summed = output<T>(summed);
    p.rstd = output<acc_t<T>>(rstd);
    p.eps = eps, p.samples = check::samples(weight, bias), p.M = x.size(0) / p.samples, p.N = x.size(1);
    p.packed = packed<T>({p.N, p.x_stride, p.residual_stride, p.gate_stride},
                         {p.x, p.residual, p.gate, p.affine.weight.data, p.affine.bias.data, p.y, p.summed});
    rows_forward<false>(p, session.device, session.workspace());
  });
}

void rms_norm_bwd(Tensor dy, Optional dsummed, Tensor x, Optional weight, Optional bias, Optional gate, Tensor rstd,
                  Tensor dx, Optional dweight, Optional dbias, Optional dgate, double weight_offset,
                  std::string activation, double slope) {
  if (!check::rows_bwd("rms_norm_bwd", dy, dsummed, x, weight, bias, gate, std::nullopt, rstd, dx, dweight, dbias,
                       dgate))
    return;
  dy = as_rows(dy), dsummed = as_rows(dsummed), x = as_rows(x), gate = as_rows(gate);
  dispatch(x, [&]<typename T>(Session<T>& session) {
    RowsBackward<T> p{};
    p.dy = input<T>(dy), p.dy_stride = dy.stride(0);
    p.dsummed = input<T>(dsummed), p.dsummed_stride = row_stride(dsummed);
    p.x = input<T>(x), p.x_stride = x.stride(0);
    p.gate = input<T>(gate), p.gate_stride = row_stride(gate);
    p.affine = affine<T>(weight, bias, weight_offset, activation, slope);
    p.rstd = input<acc_t<T>>(rstd);
    p.dx = output<T>(dx), p.dgate = output<T>(dgate), p.samples = check::samples(weight, bias),
    p.M = x.size(0) / p.samples, p.N = x.size(1);
    p.packed = packed<T>({p.N, p.dy_stride, p.dsummed_stride, p.x_stride, p.gate_stride},
                         {p.dy, p.dsummed, p.x, p.gate, p.affine.weight.data, p.affine.bias.data, p.dx, p.dgate});
    rows_backward<false>(p, line_sums_of<T>(dweight, dbias, p.N), session.device, session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) { implement<rms_norm_fwd, rms_norm_bwd>(m, "rms_norm"); }

}  // namespace normkernels::cuda
