// Online norm.
#include "checks/channels.h"
#include "cuda/channels/ops.h"
#include "cuda/online/backward.cuh"

namespace normkernels::cuda {
namespace {

void online_norm_fwd_op(Tensor x, Optional skip, Optional weight, Optional bias, Tensor running_mean,
                        Tensor running_var, Optional rates, Tensor y, Tensor mean, Tensor rstd, Optional xhat_mean,
                        Optional xhat_square, Optional gain, Optional new_mean, Optional new_var, double eps,
                        double ls_eps, double clamp, std::string activation, double slope, bool last) {
  if (!check::online_norm_fwd(x, skip, weight, bias, running_mean, running_var, rates, y, mean, rstd, xhat_mean,
                              xhat_square, gain, new_mean, new_var, last))
    return;
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    using A = acc_t<T>;
    Session session(x);
    OnlineForward<T> p{};
    p.x = input<T>(x), p.skip = input<T>(skip), p.affine = affine<T>(weight, bias, 0, activation, slope);
    p.running_mean = input<A>(running_mean), p.running_var = input<A>(running_var), p.rates = input<double>(rates);
    p.y = output<T>(y), p.mean = output<A>(mean), p.rstd = output<A>(rstd);
    p.xhat_mean = output<A>(xhat_mean), p.xhat_square = output<A>(xhat_square), p.gain = output<A>(gain);
    p.new_mean = output<A>(new_mean), p.new_var = output<A>(new_var);
    p.eps = eps, p.ls_eps = ls_eps, p.clamp = clamp;
    const void *w = last ? p.affine.weight.data : nullptr, *b = last ? p.affine.bias.data : nullptr;
    p.plan = plan_of<T>(x, mean, last, {p.x, p.skip, p.y, p.mean, p.rstd, w, b});
    online_norm_forward(p, session.device, [&](int64_t n) { return session.workspace<T>(n); });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

void online_norm_bwd_op(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor rstd,
                        Optional xhat_mean, Optional xhat_square, Optional gain, Optional epsilon_y, Optional epsilon_1,
                        Tensor dx, Optional dskip, Optional dweight, Optional dbias, Optional new_epsilon_y,
                        Optional new_epsilon_1, double alpha, bool stable, double clamp, std::string activation,
                        double slope, bool last) {
  if (!check::online_norm_bwd(dy, x, skip, weight, bias, mean, rstd, xhat_mean, xhat_square, gain, epsilon_y, epsilon_1,
                              dx, dskip, dweight, dbias, new_epsilon_y, new_epsilon_1, last))
    return;
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    using A = acc_t<T>;
    Session session(x);
    OnlineBackward<T> p{};
    p.dy = input<T>(dy), p.x = input<T>(x), p.skip = input<T>(skip);
    p.affine = affine<T>(weight, bias, 0, activation, slope), p.dx = output<T>(dx), p.dskip = output<T>(dskip);
    p.tables = {input<A>(mean), input<A>(rstd), input<A>(gain), A(clamp)}, p.masked = true;
    p.xhat_mean = input<A>(xhat_mean), p.xhat_square = input<A>(xhat_square);
    p.epsilon_y = input<A>(epsilon_y), p.epsilon_1 = input<A>(epsilon_1);
    p.new_epsilon_y = output<A>(new_epsilon_y), p.new_epsilon_1 = output<A>(new_epsilon_1);
    p.p = 1 - alpha, p.stable = stable;
    const void *w = last ? p.affine.weight.data : nullptr, *b = last ? p.affine.bias.data : nullptr;
    p.plan = plan_of<T>(x, mean, last, {p.dy, p.x, p.skip, p.dx, p.dskip, p.tables.mean, p.tables.rstd, w, b});
    online_norm_backward(p, line_sums_of<T>(dweight, dbias, p.plan.C), session.device,
                         [&](int64_t n) { return session.workspace<T>(n); });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  m.impl("online_norm_fwd", TORCH_BOX(&online_norm_fwd_op));
  m.impl("online_norm_bwd", TORCH_BOX(&online_norm_bwd_op));
}

}  // namespace normkernels::cuda
