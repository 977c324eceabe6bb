// Normalization Propagation: its epilogue.
#include "checks/channel_rules.h"
#include "cuda/channels/ops.h"
#include "cuda/normprop/backward.cuh"
#include "cuda/normprop/forward.cuh"

namespace normkernels::cuda {
namespace {

template <typename A>
Epilogue<A> checked_epilogue(const std::string& name, double leak, double scale, double shift, double low, double high,
                             bool from_output) {
  const auto e = make_epilogue<A>(name.c_str(), leak, scale, shift, low, high, from_output);
  STD_TORCH_CHECK(e.activation != Activation::kUnknown, "normkernels: activation must be a name of ACTIVATIONS, got '",
                  name, "'");
  return e;
}

// sums by channel: one statistic of each
template <typename T>
Plan plan_of_channels(const Tensor& u, bool last, std::initializer_list<const void*> tensors, const Parameter& bias,
                      const Parameter& slope) {
  const int64_t C = u.size(last ? 2 : 1), S = u.size(last ? 1 : 2);
  const bool aligned = packed<T>({}, tensors) && (!last || packed<T>({}, {bias.data, slope.data}));
  return make_plan<T>(u.size(0), C, S, 1, C, last, aligned);
}

void normprop_fwd_op(Tensor u, Optional bias, Optional slope, Tensor y, std::string activation, double leak,
                     double scale, double shift, double kink_low, double kink_high, double low, double high,
                     bool last) {
  if (!check::normprop_fwd(u, bias, slope, y, activation, last)) return;
  dispatch(u, [&](auto zero) {
    using T = decltype(zero);
    Session session(u);
    NormpropForward<T> p{};
    p.u = input<T>(u), p.bias = parameter(bias), p.slope = parameter(slope), p.y = output<T>(y);
    p.epilogue = checked_epilogue<acc_t<T>>(activation, leak, scale, shift, low, high, false);
    p.epilogue.kink_low = kink_low, p.epilogue.kink_high = kink_high;
    p.plan = plan_of_channels<T>(u, last, {p.u, p.y}, p.bias, p.slope);
    normprop_forward(p, session.device);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

void normprop_bwd_op(Tensor dy, Tensor saved, Optional bias, Optional slope, Tensor du, Optional dbias, Optional dslope,
                     std::string activation, double leak, double scale, double shift, double low, double high,
                     bool from_output, bool last) {
  if (!check::normprop_bwd(dy, saved, bias, slope, du, dbias, dslope, activation, last)) return;
  dispatch(saved, [&](auto zero) {
    using T = decltype(zero);
    Session session(saved);
    NormpropBackward<T> p{};
    p.dy = input<T>(dy), p.saved = input<T>(saved), p.slope = parameter(slope), p.du = output<T>(du);
    if (!from_output) p.bias = parameter(bias);
    p.epilogue = checked_epilogue<acc_t<T>>(activation, leak, scale, shift, low, high, from_output);
    p.plan = plan_of_channels<T>(saved, last, {p.dy, p.saved, p.du}, p.bias, p.slope);
    normprop_backward(p, line_sums_of<T>(dbias, dslope, p.plan.C), session.device,
                      [&](int64_t n) { return session.workspace<T>(n); });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  m.impl("normprop_fwd", TORCH_BOX(&normprop_fwd_op));
  m.impl("normprop_bwd", TORCH_BOX(&normprop_bwd_op));
}

}  // namespace normkernels::cuda
