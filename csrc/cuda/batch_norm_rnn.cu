// The RNN with batch norm.
#include "checks/recurrent.h"
#include "cuda/recurrent/batch_norm_rnn.cuh"
#include "cuda/recurrent/steps.h"

namespace normkernels::cuda {
namespace {

void batch_norm_rnn_fwd(Tensor x, Tensor weight_hh, Optional weight, Optional bias, Optional batch_sizes, Tensor h,
                        Tensor y, Tensor a, Tensor mean, Tensor var, bool training, bool separate,
                        std::string nonlinearity, double eps, bool reverse) {
  if (!check::batch_norm_rnn_fwd(x, weight_hh, weight, bias, batch_sizes, h, y, a, mean, var, nonlinearity)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_forward<BatchNormRnnForward, T>(x, weight, bias, h, y, a, separate, eps);
    p.mean = output<A>(mean), p.var = output<A>(var);
    p.training = training, p.relu = nonlinearity == "relu";
    walk_forward(p, y, weight_hh, h, a, batch_sizes, reverse, session.device);
  });
}

void batch_norm_rnn_bwd(Tensor dy, Tensor y, Tensor a, Tensor mean, Tensor var, Tensor weight_hh, Optional weight,
                        Optional batch_sizes, Tensor dh, Tensor dinput, Optional da, Optional dweight, Optional dbias,
                        bool training, std::string nonlinearity, double eps, bool reverse) {
  if (!check::batch_norm_rnn_bwd(dy, y, a, mean, var, weight_hh, weight, batch_sizes, dh, dinput, da, dweight, dbias,
                                 nonlinearity))
    return;
  dispatch(dy, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_backward<BatchNormRnnBackward, T>(dy, a, weight, dh, dinput, da);
    p.mean = input<A>(mean), p.var = input<A>(var), p.eps = eps;
    p.training = training, p.y = input<T>(y), p.relu = nonlinearity == "relu";
    p.P = 1, p.partial = zero_lines(session, dweight, dbias, p.P, p.hidden);
    walk_backward(p, da ? *da : dinput, weight_hh, dh, batch_sizes, reverse, session.device);
    add_lines_up<T>(p.partial, dweight, dbias, p.P, p.hidden, session.device);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<batch_norm_rnn_fwd, batch_norm_rnn_bwd>(m, "batch_norm_rnn");
}

}  // namespace normkernels::cuda
