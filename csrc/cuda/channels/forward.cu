// From tensors to the forward sweeps of the channel family.
#include "checks/channels.h"
#include "cuda/channels/ops.h"
#include "cuda/channels/resident_forward.cuh"

namespace normkernels::cuda {
namespace {

template <typename T>
ChannelsForward<T> forward(Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var, Optional y,
                           double eps, const check::Epilogue& end, double slope, bool last) {
  ChannelsForward<T> p{};
  p.x = input<T>(x), p.skip = input<T>(skip), p.affine = affine<T>(weight, bias, 0, end.activation, slope);
  p.gated = end.gated;
  p.mean = output<acc_t<T>>(mean), p.var = output<acc_t<T>>(var), p.eps = eps, p.y = output<T>(y);
  p.plan = plan_of<T>(x, mean, last, {p.x, p.skip, p.y, p.mean, p.var}, {p.affine.weight.data, p.affine.bias.data});
  return p;
}

}  // namespace

void channels_fwd_op(Tensor x, Optional skip, Optional weight, Optional bias, Tensor y, Tensor mean, Tensor var,
                     double eps, std::string activation, double slope, bool last) {
  constexpr const char* kOp = "batch, group or instance_norm_fwd";
  const check::Epilogue end(kOp, activation, skip);
  if (!check::channels_fwd(kOp, x, skip, weight, bias, y, mean, var, last)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    const auto p = forward<T>(x, skip, weight, bias, mean, var, y, eps, end, slope, last);
    channels_forward(p, session.device, session.workspace());
  });
}

void channels_apply_op(Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var, Tensor y,
                       double eps, std::string activation, double slope, bool last) {
  const check::Epilogue end("batch_norm_apply", activation, skip);
  if (!check::channels_apply("batch_norm_apply", x, skip, weight, bias, mean, var, y, last)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    channels_apply(forward<T>(x, skip, weight, bias, mean, var, y, eps, end, slope, last), session.device);
  });
}

void channels_moments_op(Tensor x, Tensor mean, Tensor var, bool last) {
  if (!check::channels_fwd("batch_norm_moments", x, std::nullopt, std::nullopt, std::nullopt, std::nullopt, mean, var,
                           last))
    return;
  const Optional none;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    const auto p =
        forward<T>(x, none, none, none, mean, var, none, 0, {"batch_norm_moments", "identity", none}, 0, last);
    channels_moments(p, session.device, session.workspace());
  });
}

}  // namespace normkernels::cuda
