// Batch renorm.
#include "checks/channel_rules.h"
#include "cuda/channels/batch_renorm.cuh"
#include "cuda/channels/ops.h"

namespace normkernels::cuda {
namespace {

void batch_renorm_fwd(Tensor x, Optional skip, Optional weight, Optional bias, Tensor running_mean, Tensor running_std,
                      Tensor r_max, Tensor d_max, Tensor y, Tensor mean, Tensor var, Tensor r, Tensor d, double eps,
                      std::string activation, double slope, bool last) {
  if (!check::batch_renorm_fwd(x, skip, weight, bias, running_mean, running_std, r_max, d_max, y, mean, var, r, d,
                               last))
    return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    BatchRenormForward<T> p{};
    p.x = input<T>(x), p.skip = input<T>(skip), p.affine = affine<T>(weight, bias, 0, activation, slope);
    p.mean = output<A>(mean), p.var = output<A>(var), p.eps = eps, p.y = output<T>(y);
    p.running_mean = input<A>(running_mean), p.running_std = input<A>(running_std);
    p.r_max = input<A>(r_max), p.d_max = input<A>(d_max), p.r = output<A>(r), p.d = output<A>(d);
    p.plan = plan_of<T>(x, mean, last, {p.x, p.skip, p.y, p.mean, p.var}, {});
    batch_renorm_forward(p, session.device, session.workspace());
  });
}

void batch_renorm_bwd(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var,
                      Tensor r, Tensor d, Tensor dx, Optional dskip, Optional dweight, Optional dbias, double eps,
                      std::string activation, double slope, bool last) {
  if (!check::batch_renorm_bwd(dy, x, skip, weight, bias, mean, var, r, d, dx, dskip, dweight, dbias, last)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    ChannelsBackward<T> p{};
    p.dy = input<T>(dy), p.x = input<T>(x), p.skip = input<T>(skip);
    p.affine = affine<T>(weight, bias, 0, activation, slope);
    p.mean = input<A>(mean), p.var = input<A>(var), p.eps = eps;
    p.dx = output<T>(dx), p.dskip = output<T>(dskip);
    p.plan = plan_of<T>(x, mean, last, {p.dy, p.x, p.skip, p.dx, p.dskip, p.mean, p.var}, {});
    batch_renorm_backward(p, input<A>(r), input<A>(d), line_sums_of<T>(dweight, dbias, p.plan.C), session.device,
                          session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) { implement<batch_renorm_fwd, batch_renorm_bwd>(m, "batch_renorm"); }

}  // namespace normkernels::cuda
