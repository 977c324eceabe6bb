// Online norm.
#include "checks/channels.h"
#include "cuda/channels/ops.h"
#include "cuda/online/backward.cuh"

namespace normkernels::cuda {
namespace {

void online_norm_fwd(Tensor x, Optional skip, Optional weight, Optional bias, Tensor running_mean, Tensor running_var,
                     Optional rates, Tensor y, Tensor mean, Tensor rstd, Optional xhat_mean, Optional xhat_square,
                     Optional gain, Optional new_mean, Optional new_var, double eps, double ls_eps, double clamp,
                     std::string activation, double slope, bool last) {
  if (!check::online_norm_fwd(x, skip, weight, bias, running_mean, running_var, rates, y, mean, rstd, xhat_mean,
                              xhat_square, gain, new_mean, new_var, last))
    return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    OnlineForward<T> p{};
    p.x = input<T>(x), p.skip = input<T>(skip), p.affine = affine<T>(weight, bias, 0, activation, slope);
    p.running_mean = input<A>(running_mean), p.running_var = input<A>(running_var), p.rates = input<double>(rates);
    p.y = output<T>(y), p.mean = output<A>(mean), p.rstd = output<A>(rstd);
    p.xhat_mean = output<A>(xhat_mean), p.xhat_square = output<A>(xhat_square), p.gain = output<A>(gain);
    p.new_mean = output<A>(new_mean), p.new_var = output<A>(new_var);
    p.eps = eps, p.ls_eps = ls_eps, p.clamp = clamp;
    p.plan = plan_of<T>(x, mean, last, {p.x, p.skip, p.y, p.mean, p.rstd}, {p.affine.weight.data, p.affine.bias.data});
    online_norm_forward(p, session.device, session.workspace());
  });
}

void online_norm_bwd(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor rstd,
                     Optional xhat_mean, Optional xhat_square, Optional gain, Optional epsilon_y, Optional epsilon_1,
                     Tensor dx, Optional dskip, Optional dweight, Optional dbias, Optional new_epsilon_y,
                     Optional new_epsilon_1, double alpha, bool stable, double clamp, std::string activation,
                     double slope, bool last) {
  if (!check::online_norm_bwd(dy, x, skip, weight, bias, mean, rstd, xhat_mean, xhat_square, gain, epsilon_y, epsilon_1,
                              dx, dskip, dweight, dbias, new_epsilon_y, new_epsilon_1, last))
    return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    OnlineBackward<T> p{};
    p.dy = input<T>(dy), p.x = input<T>(x), p.skip = input<T>(skip);
    p.affine = affine<T>(weight, bias, 0, activation, slope), p.dx = output<T>(dx), p.dskip = output<T>(dskip);
    p.tables = {input<A>(mean), input<A>(rstd), input<A>(gain), A(clamp)}, p.masked = true;
    p.xhat_mean = input<A>(xhat_mean), p.xhat_square = input<A>(xhat_square);
    p.epsilon_y = input<A>(epsilon_y), p.epsilon_1 = input<A>(epsilon_1);
    p.new_epsilon_y = output<A>(new_epsilon_y), p.new_epsilon_1 = output<A>(new_epsilon_1);
    p.p = 1 - alpha, p.stable = stable;
    p.plan = plan_of<T>(x, mean, last, {p.dy, p.x, p.skip, p.dx, p.dskip, p.tables.mean, p.tables.rstd},
                        {p.affine.weight.data, p.affine.bias.data});
    online_norm_backward(p, line_sums_of<T>(dweight, dbias, p.plan.C), session.device, session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) { implement<online_norm_fwd, online_norm_bwd>(m, "online_norm"); }

}  // namespace normkernels::cuda
