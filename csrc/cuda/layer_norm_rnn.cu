// The RNN with layer norm.
#include "checks/recurrent.h"
#include "cuda/recurrent/layer_norm_rnn.cuh"
#include "cuda/recurrent/steps.h"

namespace normkernels::cuda {
namespace {

void layer_norm_rnn_fwd(Tensor x, Tensor weight_hh, Optional weight, Optional bias, Optional batch_sizes, Tensor h,
                        Tensor y, Tensor a, Tensor mean, Tensor rstd, bool separate, std::string nonlinearity,
                        double eps, bool reverse) {
  if (!check::layer_norm_rnn_fwd(x, weight_hh, weight, bias, batch_sizes, h, y, a, mean, rstd, nonlinearity)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_forward<LayerNormRnnForward, T>(x, weight, bias, h, y, a, separate, eps);
    const int64_t gates = 1;
    p.mean = output<A>(mean), p.rstd = output<A>(rstd), p.groups = make_groups<A, 1>(&gates, 1, p.hidden);
    p.relu = nonlinearity == "relu", p.packed = packed_step<T>(p);
    walk_forward(p, y, weight_hh, h, a, batch_sizes, reverse, session.device);
  });
}

void layer_norm_rnn_bwd(Tensor dy, Tensor y, Tensor a, Tensor mean, Tensor rstd, Tensor weight_hh, Optional weight,
                        Optional batch_sizes, Tensor dh, Tensor dinput, Optional da, Optional dweight, Optional dbias,
                        std::string nonlinearity, bool reverse) {
  if (!check::layer_norm_rnn_bwd(dy, y, a, mean, rstd, weight_hh, weight, batch_sizes, dh, dinput, da, dweight, dbias,
                                 nonlinearity))
    return;
  dispatch(dy, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_backward<LayerNormRnnBackward, T>(dy, a, weight, dh, dinput, da);
    const int64_t gates = 1;
    p.mean = input<A>(mean), p.rstd = input<A>(rstd), p.groups = make_groups<A, 1>(&gates, 1, p.hidden);
    p.y = input<T>(y), p.relu = nonlinearity == "relu";
    p.P = lines_of(dh.size(0)), p.partial = zero_lines(session, dweight, dbias, p.P, p.hidden);
    p.packed = packed_step<T>(p) && packed<T>({}, {p.y});
    walk_backward(p, da ? *da : dinput, weight_hh, dh, batch_sizes, reverse, session.device);
    add_lines_up<T>(p.partial, dweight, dbias, p.P, p.hidden, session.device);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<layer_norm_rnn_fwd, layer_norm_rnn_bwd>(m, "layer_norm_rnn");
}

}  // namespace normkernels::cuda
