// Layer norm over rows whose units lie a stride apart: dim 1 of a contiguous (B, N, S).
#include "checks/rows.h"
#include "cuda/base/tensors.h"
#include "cuda/strided_rows/backward.cuh"
#include "cuda/strided_rows/forward.cuh"

namespace normkernels::cuda {
namespace {

void layer_norm_2d_fwd(Tensor x, Optional residual, Optional weight, Optional bias, Tensor y, Optional summed,
                       Tensor mean, Tensor rstd, double eps, double weight_offset, std::string activation,
                       double slope) {
  if (!check::strided_rows_fwd("layer_norm_2d_fwd", x, residual, weight, bias, y, summed, mean, rstd)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    StridedRowsForward<T> p{};
    p.x = input<T>(x), p.residual = input<T>(residual);
    p.affine = affine<T>(weight, bias, weight_offset, activation, slope);
    p.y = output<T>(y), p.summed = output<T>(summed);
    p.mean = output<A>(mean), p.rstd = output<A>(rstd);
    p.eps = eps, p.B = x.size(0), p.N = x.size(1), p.S = x.size(2);
    p.packed = packed<T>({p.S}, {p.x, p.residual, p.y, p.summed, p.mean, p.rstd});
    strided_rows_forward(p, session.device);
  });
}

void layer_norm_2d_bwd(Tensor dy, Optional dsummed, Tensor x, Optional weight, Optional bias, Tensor mean, Tensor rstd,
                       Tensor dx, Optional dweight, Optional dbias, double weight_offset, std::string activation,
                       double slope) {
  if (!check::strided_rows_bwd("layer_norm_2d_bwd", dy, dsummed, x, weight, bias, mean, rstd, dx, dweight, dbias))
    return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    StridedRowsBackward<T> p{};
    p.dy = input<T>(dy), p.dsummed = input<T>(dsummed), p.x = input<T>(x);
    p.affine = affine<T>(weight, bias, weight_offset, activation, slope);
    p.mean = input<A>(mean), p.rstd = input<A>(rstd);
    p.dx = output<T>(dx), p.B = x.size(0), p.N = x.size(1), p.S = x.size(2);
    p.packed = packed<T>({p.S}, {p.dy, p.dsummed, p.x, p.dx, p.mean, p.rstd});
    strided_rows_backward(p, line_sums_of<T>(dweight, dbias, p.N), session.device, session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<layer_norm_2d_fwd, layer_norm_2d_bwd>(m, "layer_norm_2d");
}

}  // namespace normkernels::cuda
