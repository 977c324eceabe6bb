// The LSTM with batch norm.
#include "checks/lstm.h"
#include "cuda/recurrent/batch_norm_lstm_backward.cuh"
#include "cuda/recurrent/batch_norm_lstm_forward.cuh"
#include "cuda/recurrent/steps.h"

namespace normkernels::cuda {
namespace {

void batch_norm_lstm_fwd(Tensor x, Tensor weight_hh, Optional weight, Optional bias, Optional cell_weight,
                         Optional cell_bias, Optional batch_sizes, Tensor h, Tensor c, Tensor y, Tensor a, Tensor mean,
                         Tensor var, Tensor gates, Tensor cells, Optional raw_cells, Optional cell_mean,
                         Optional cell_var, bool training, bool separate, double eps, bool reverse) {
  if (!check::batch_norm_lstm_fwd(x, weight_hh, weight, bias, cell_weight, cell_bias, batch_sizes, h, c, y, a, mean,
                                  var, gates, cells, raw_cells, cell_mean, cell_var))
    return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_forward<BatchNormLstmForward, T>(x, weight, bias, h, y, a, separate, eps);
    p.mean = output<A>(mean), p.var = output<A>(var), p.training = training;
    p.lstm = lstm_forward<T>(gates, c, cells, raw_cells, cell_weight, cell_bias);
    p.cell_mean = output<A>(cell_mean), p.cell_var = output<A>(cell_var);
    walk_forward(p, y, weight_hh, h, a, batch_sizes, reverse, session.device);
  });
}

void batch_norm_lstm_bwd(Tensor dy, Tensor gates, Tensor cells, Optional raw_cells, Optional cell_mean,
                         Optional cell_var, Tensor previous_cells, Tensor a, Tensor mean, Tensor var, Tensor weight_hh,
                         Optional weight, Optional cell_weight, Optional cell_bias, Optional batch_sizes, Tensor dh,
                         Tensor dc, Tensor dinput, Optional da, Optional dweight, Optional dbias, Optional dcell_weight,
                         Optional dcell_bias, bool training, double eps, bool reverse) {
  if (!check::batch_norm_lstm_bwd(dy, gates, cells, raw_cells, cell_mean, cell_var, previous_cells, a, mean, var,
                                  weight_hh, weight, cell_weight, cell_bias, batch_sizes, dh, dc, dinput, da, dweight,
                                  dbias, dcell_weight, dcell_bias))
    return;
  dispatch(dy, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_backward<BatchNormLstmBackward, T>(dy, a, weight, dh, dinput, da);
    p.mean = input<A>(mean), p.var = input<A>(var), p.training = training, p.eps = eps;
    p.P = 1, p.partial = zero_lines(session, dweight, dbias, p.P, 4 * p.hidden);
    auto* cell_lines = zero_lines(session, dcell_weight, dcell_bias, p.P, p.hidden);
    p.lstm = lstm_backward<T>(gates, cells, raw_cells, previous_cells, dc, cell_weight, cell_bias, cell_lines);
    p.cell_mean = input<A>(cell_mean), p.cell_var = input<A>(cell_var);
    walk_backward(p, da ? *da : dinput, weight_hh, dh, batch_sizes, reverse, session.device);
    add_lines_up<T>(p.partial, dweight, dbias, p.P, 4 * p.hidden, session.device);
    add_lines_up<T>(cell_lines, dcell_weight, dcell_bias, p.P, p.hidden, session.device);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<batch_norm_lstm_fwd, batch_norm_lstm_bwd>(m, "batch_norm_lstm");
}

}  // namespace normkernels::cuda
