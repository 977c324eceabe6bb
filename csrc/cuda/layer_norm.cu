// Layer norm over rows: (M, N), adjacent columns, any row stride; rows that lie in runs are copied first.
#include "checks/rows.h"
#include "cuda/base/tensors.h"
#include "cuda/rows/backward.cuh"
#include "cuda/rows/forward.cuh"

namespace normkernels::cuda {
namespace {

void layer_norm_fwd(Tensor x, Optional residual, Optional weight, Optional bias, Optional gate, Tensor y,
                    Optional summed, Tensor mean, Tensor rstd, double eps, double weight_offset, std::string activation,
                    double slope) {
  if (!check::rows_fwd("layer_norm_fwd", x, residual, weight, bias, gate, y, summed, mean, rstd)) return;
  x = as_rows(x), residual = as_rows(residual), gate = as_rows(gate);
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    RowsForward<T> p{};
    p.x = input<T>(x), p.x_stride = x.stride(0);
    p.residual = input<T>(residual), p.residual_stride = row_stride(residual);
    p.gate = input<T>(gate), p.gate_stride = row_stride(gate);
    p.affine = affine<T>(weight, bias, weight_offset, activation, slope);
    p.y = output<T>(y), p.summed = output<T>(summed);
    p.mean = output<A>(mean), p.rstd = output<A>(rstd);
    p.eps = eps, p.samples = check::samples(weight, bias), p.M = x.size(0) / p.samples, p.N = x.size(1);
    p.packed = packed<T>({p.N, p.x_stride, p.residual_stride, p.gate_stride},
                         {p.x, p.residual, p.gate, p.affine.weight.data, p.affine.bias.data, p.y, p.summed});
    rows_forward<true>(p, session.device, session.workspace());
  });
}

void layer_norm_bwd(Tensor dy, Optional dsummed, Tensor x, Optional weight, Optional bias, Optional gate, Tensor mean,
                    Tensor rstd, Tensor dx, Optional dweight, Optional dbias, Optional dgate, double weight_offset,
                    std::string activation, double slope) {
  if (!check::rows_bwd("layer_norm_bwd", dy, dsummed, x, weight, bias, gate, mean, rstd, dx, dweight, dbias, dgate))
    return;
  dy = as_rows(dy), dsummed = as_rows(dsummed), x = as_rows(x), gate = as_rows(gate);
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    RowsBackward<T> p{};
    p.dy = input<T>(dy), p.dy_stride = dy.stride(0);
    p.dsummed = input<T>(dsummed), p.dsummed_stride = row_stride(dsummed);
    p.x = input<T>(x), p.x_stride = x.stride(0);
    p.gate = input<T>(gate), p.gate_stride = row_stride(gate);
    p.affine = affine<T>(weight, bias, weight_offset, activation, slope);
    p.mean = input<A>(mean), p.rstd = input<A>(rstd);
    p.dx = output<T>(dx), p.dgate = output<T>(dgate), p.samples = check::samples(weight, bias),
    p.M = x.size(0) / p.samples, p.N = x.size(1);
    p.packed = packed<T>({p.N, p.dy_stride, p.dsummed_stride, p.x_stride, p.gate_stride},
                         {p.dy, p.dsummed, p.x, p.gate, p.affine.weight.data, p.affine.bias.data, p.dx, p.dgate});
    rows_backward<true>(p, line_sums_of<T>(dweight, dbias, p.N), session.device, session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) { implement<layer_norm_fwd, layer_norm_bwd>(m, "layer_norm"); }

}  // namespace normkernels::cuda
