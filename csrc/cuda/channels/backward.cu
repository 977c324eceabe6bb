// From tensors to the backward sweeps of the channel family.
#include "checks/channels.h"
#include "cuda/channels/ops.h"
#include "cuda/channels/resident_backward.cuh"

namespace normkernels::cuda {
namespace {

template <typename T>
ChannelsBackward<T> backward(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean,
                             Tensor var, Optional dx, Optional dskip, double eps, const check::Epilogue& end,
                             double slope, bool last) {
  ChannelsBackward<T> p{};
  p.dy = input<T>(dy), p.x = input<T>(x), p.skip = input<T>(skip);
  p.affine = affine<T>(weight, bias, 0, end.activation, slope), p.gated = end.gated;
  p.mean = input<acc_t<T>>(mean), p.var = input<acc_t<T>>(var), p.eps = eps;
  p.dx = output<T>(dx), p.dskip = output<T>(dskip);
  p.plan = plan_of<T>(x, mean, last, {p.dy, p.x, p.skip, p.dx, p.dskip, p.mean, p.var},
                      {p.affine.weight.data, p.affine.bias.data});
  return p;
}

}  // namespace

void channels_bwd_op(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var,
                     Tensor dx, Optional dskip, Optional dweight, Optional dbias, double eps, bool training,
                     std::string activation, double slope, bool last) {
  constexpr const char* kOp = "batch, group or instance_norm_bwd";
  const check::Epilogue end(kOp, activation, skip);
  if (!check::channels_bwd(kOp, dy, x, skip, weight, bias, mean, var, dx, dskip, dweight, dbias, last)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    auto p = backward<T>(dy, x, skip, weight, bias, mean, var, dx, dskip, eps, end, slope, last);
    p.sums = line_sums_of<T>(dweight, dbias, p.plan.C);
    channels_backward(p, training, session.device, session.workspace());
  });
}

void channels_sums_op(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var,
                      Tensor sum_dy, Tensor sum_dy_xhat, double eps, std::string activation, double slope, bool last) {
  const check::Epilogue end("batch_norm_sums", activation, skip);
  if (!check::batch_norm_sums(dy, x, skip, weight, bias, mean, var, sum_dy, sum_dy_xhat, last)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    const Optional none;
    auto p = backward<T>(dy, x, skip, weight, bias, mean, var, none, none, eps, end, slope, last);
    p.sums = line_sums_of<T>(sum_dy_xhat, sum_dy, p.plan.C);
    channels_sums(p, session.device, session.workspace());
  });
}

void channels_dx_op(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var,
                    Tensor mean_dy, Tensor mean_dy_xhat, Tensor dx, Optional dskip, double eps, std::string activation,
                    double slope, bool last) {
  const check::Epilogue end("batch_norm_dx", activation, skip);
  if (!check::batch_norm_dx(dy, x, skip, weight, bias, mean, var, mean_dy, mean_dy_xhat, dx, dskip, last)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    auto p = backward<T>(dy, x, skip, weight, bias, mean, var, dx, dskip, eps, end, slope, last);
    p.mean_g = input<acc_t<T>>(mean_dy), p.mean_g_xhat = input<acc_t<T>>(mean_dy_xhat), p.of_du = true;
    p.plan.packed = p.plan.packed && (!last || packed<T>({}, {p.mean_g, p.mean_g_xhat}));
    channels_dx(p, session.device);
  });
}

}  // namespace normkernels::cuda
