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

void normprop_fwd(Tensor u, Optional bias, Optional slope, Tensor y, std::string activation, double leak, double scale,
                  double shift, double kink_low, double kink_high, double low, double high, bool last) {
  if (!check::normprop_fwd(u, bias, slope, y, activation, last)) return;
  dispatch(u, [&]<typename T>(Session<T>& session) {
    NormpropForward<T> p{};
    p.u = input<T>(u), p.bias = parameter(bias), p.slope = parameter(slope), p.y = output<T>(y);
    p.epilogue = checked_epilogue<acc_t<T>>(activation, leak, scale, shift, low, high, false);
    p.epilogue.kink_low = kink_low, p.epilogue.kink_high = kink_high;
    p.plan = plan_of_channels<T>(u, last, {p.u, p.y}, {p.bias.data, p.slope.data});
    normprop_forward(p, session.device);
  });
}

void normprop_bwd(Tensor dy, Tensor saved, Optional bias, Optional slope, Tensor du, Optional dbias, Optional dslope,
                  std::string activation, double leak, double scale, double shift, double low, double high,
                  bool from_output, bool last) {
  if (!check::normprop_bwd(dy, saved, bias, slope, du, dbias, dslope, activation, last)) return;
  dispatch(saved, [&]<typename T>(Session<T>& session) {
    NormpropBackward<T> p{};
    p.dy = input<T>(dy), p.saved = input<T>(saved), p.slope = parameter(slope), p.du = output<T>(du);
    if (!from_output) p.bias = parameter(bias);
    p.epilogue = checked_epilogue<acc_t<T>>(activation, leak, scale, shift, low, high, from_output);
    p.plan = plan_of_channels<T>(saved, last, {p.dy, p.saved, p.du}, {p.bias.data, p.slope.data});
    normprop_backward(p, line_sums_of<T>(dbias, dslope, p.plan.C), session.device, session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) { implement<normprop_fwd, normprop_bwd>(m, "normprop"); }

}  // namespace normkernels::cuda
