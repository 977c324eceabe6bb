// Streaming norm.
#include "checks/channel_rules.h"
#include "cuda/channels/ops.h"
#include "cuda/channels/streaming_norm.cuh"

namespace normkernels::cuda {
namespace {

template <typename T>
Memory<T> memory(const Tensor& long_term, const Tensor& short_term, const Tensor& counts, const Tensor& new_short_term,
                 double of_long, double of_short, double of_found) {
  using A = acc_t<T>;
  return {input<A>(long_term), input<A>(short_term), input<A>(counts), output<A>(new_short_term),
          A(of_long),          A(of_short),          A(of_found)};
}

void streaming_norm_fwd(Tensor x, Optional skip, Optional weight, Optional bias, Tensor long_term, Tensor short_term,
                        Tensor counts, Tensor y, Tensor found, Tensor used, Optional deviations, Tensor new_short_term,
                        double of_long, double of_short, double power, double eps, std::string activation, double slope,
                        bool last) {
  if (!check::streaming_norm_fwd(x, skip, weight, bias, long_term, short_term, counts, y, found, used, deviations,
                                 new_short_term, power, last))
    return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    StreamingForward<T> p{};
    p.x = input<T>(x), p.skip = input<T>(skip), p.affine = affine<T>(weight, bias, 0, activation, slope);
    p.memory = memory<T>(long_term, short_term, counts, new_short_term, of_long, of_short, 0);
    p.y = output<T>(y), p.found = output<A>(found), p.used = output<A>(used), p.deviations = output<A>(deviations);
    p.power = power, p.eps = eps;
    p.plan =
        plan_of_channels<T>(x, last, {p.x, p.skip, p.y, p.found, p.used}, {p.affine.weight.data, p.affine.bias.data});
    streaming_norm_forward(p, session.device, session.workspace());
  });
}

void streaming_norm_bwd(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor found, Tensor used,
                        Optional deviations, Tensor long_term, Tensor short_term, Tensor counts, Tensor dx,
                        Optional dskip, Optional dweight, Optional dbias, Tensor new_short_term, double of_long,
                        double of_short, double of_found, double power, double eps, std::string activation,
                        double slope, bool last) {
  if (!check::streaming_norm_bwd(dy, x, skip, weight, bias, found, used, deviations, long_term, short_term, counts, dx,
                                 dskip, dweight, dbias, new_short_term, power, last))
    return;
  (void)eps;  // it is in the scales
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    StreamingBackward<T> p{};
    p.dy = input<T>(dy), p.x = input<T>(x), p.skip = input<T>(skip);
    p.affine = affine<T>(weight, bias, 0, activation, slope), p.power = power;
    p.dx = output<T>(dx), p.dskip = output<T>(dskip);
    p.memory = memory<T>(long_term, short_term, counts, new_short_term, of_long, of_short, of_found);
    p.found = input<A>(found), p.used = input<A>(used), p.deviations = input<A>(deviations);
    p.plan = plan_of_channels<T>(x, last, {p.dy, p.x, p.skip, p.dx, p.dskip, p.found, p.used},
                                 {p.affine.weight.data, p.affine.bias.data});
    streaming_norm_backward(p, line_sums_of<T>(dweight, dbias, p.plan.C), session.device, session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<streaming_norm_fwd, streaming_norm_bwd>(m, "streaming_norm");
}

}  // namespace normkernels::cuda
