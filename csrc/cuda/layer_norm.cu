// Layer norm over rows: (M, N), adjacent columns, any row stride, or rows in runs.
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
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    RowsForward<T> p{};
    p.x = input<T>(x), p.x_stride = row_stride(x), p.x_runs = {runs_of(x)};
    p.residual = input<T>(residual), p.residual_stride = row_stride(residual), p.residual_runs = {runs_of(residual)};
    p.gate = input<T>(gate), p.gate_stride = row_stride(gate), p.gate_runs = {runs_of(gate)};
    p.affine = affine<T>(weight, bias, weight_offset, activation, slope);
    p.y = output<T>(y), p.summed = output<T>(summed);
    p.mean = output<A>(mean), p.rstd = output<A>(rstd);
    p.eps = eps, p.samples = check::samples(weight, bias), p.M = y.size(0) / p.samples, p.N = y.size(1);
    p.packed = packed<T>({p.N, p.x_stride, p.residual_stride, p.gate_stride, p.x_runs.near, p.x_runs.far,
                          p.residual_runs.near, p.residual_runs.far, p.gate_runs.near, p.gate_runs.far},
                         {p.x, p.residual, p.gate, p.affine.weight.data, p.affine.bias.data, p.y, p.summed});
    rows_forward<true>(p, session.device, session.workspace());
  });
}

void layer_norm_bwd(Tensor dy, Optional dsummed, Tensor x, Optional weight, Optional bias, Optional gate, Tensor mean,
                    Tensor rstd, Tensor dx, Optional dweight, Optional dbias, Optional dgate, double weight_offset,
                    std::string activation, double slope) {
  if (!check::rows_bwd("layer_norm_bwd", dy, dsummed, x, weight, bias, gate, mean, rstd, dx, dweight, dbias, dgate))
    return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    RowsBackward<T> p{};
    p.dy = input<T>(dy), p.dy_stride = row_stride(dy), p.dy_runs = {runs_of(dy)};
    p.dsummed = input<T>(dsummed), p.dsummed_stride = row_stride(dsummed), p.dsummed_runs = {runs_of(dsummed)};
    p.x = input<T>(x), p.x_stride = row_stride(x), p.x_runs = {runs_of(x)};
    p.gate = input<T>(gate), p.gate_stride = row_stride(gate), p.gate_runs = {runs_of(gate)};
    p.affine = affine<T>(weight, bias, weight_offset, activation, slope);
    p.mean = input<A>(mean), p.rstd = input<A>(rstd);
    p.dx = output<T>(dx), p.dgate = output<T>(dgate), p.samples = check::samples(weight, bias),
    p.M = dx.size(0) / p.samples, p.N = dx.size(1);
    p.packed = packed<T>(
        {p.N, p.dy_stride, p.dsummed_stride, p.x_stride, p.gate_stride, p.dy_runs.near, p.dy_runs.far,
         p.dsummed_runs.near, p.dsummed_runs.far, p.x_runs.near, p.x_runs.far, p.gate_runs.near, p.gate_runs.far},
        {p.dy, p.dsummed, p.x, p.gate, p.affine.weight.data, p.affine.bias.data, p.dx, p.dgate});
    rows_backward<true>(p, line_sums_of<T>(dweight, dbias, p.N), session.device, session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) { implement<layer_norm_fwd, layer_norm_bwd>(m, "layer_norm"); }

}  // namespace normkernels::cuda
