// The LSTM with layer norm.
#include "checks/lstm.h"
#include "cuda/recurrent/layer_norm_lstm_backward.cuh"
#include "cuda/recurrent/layer_norm_lstm_forward.cuh"
#include "cuda/recurrent/steps.h"

namespace normkernels::cuda {
namespace {

void layer_norm_lstm_fwd(Tensor x, Tensor weight_hh, Optional weight, Optional bias, Optional cell_weight,
                         Optional cell_bias, Optional batch_sizes, Tensor h, Tensor c, Tensor y, Tensor a, Tensor mean,
                         Tensor rstd, Tensor gates, Tensor cells, Optional raw_cells, Optional cell_mean,
                         Optional cell_rstd, std::vector<int64_t> groups, bool separate, double eps, bool reverse) {
  if (!check::layer_norm_lstm_fwd(x, weight_hh, weight, bias, cell_weight, cell_bias, batch_sizes, h, c, y, a, mean,
                                  rstd, gates, cells, raw_cells, cell_mean, cell_rstd, groups))
    return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_forward<LayerNormLstmForward, T>(x, weight, bias, h, y, a, separate, eps);
    p.mean = output<A>(mean), p.rstd = output<A>(rstd);
    p.groups = make_groups<A, 4>(groups.data(), groups.size(), p.hidden);
    p.lstm = lstm_forward<T>(gates, c, cells, raw_cells, cell_weight, cell_bias);
    p.cell_mean = output<A>(cell_mean), p.cell_rstd = output<A>(cell_rstd);
    p.packed = packed_step<T>(p) && packed<T>({}, {p.lstm.gates, p.lstm.c, p.lstm.cells, p.lstm.raw_cells,
                                                   p.lstm.cell_weight.data, p.lstm.cell_bias.data});
    walk_forward(p, y, weight_hh, h, a, batch_sizes, reverse, session.device);
  });
}

void layer_norm_lstm_bwd(Tensor dy, Tensor gates, Tensor cells, Optional raw_cells, Optional cell_mean,
                         Optional cell_rstd, Tensor previous_cells, Tensor a, Tensor mean, Tensor rstd,
                         Tensor weight_hh, Optional weight, Optional cell_weight, Optional cell_bias,
                         Optional batch_sizes, Tensor dh, Tensor dc, Tensor dinput, Optional da, Optional dweight,
                         Optional dbias, Optional dcell_weight, Optional dcell_bias, std::vector<int64_t> groups,
                         bool reverse) {
  if (!check::layer_norm_lstm_bwd(dy, gates, cells, raw_cells, cell_mean, cell_rstd, previous_cells, a, mean, rstd,
                                  weight_hh, weight, cell_weight, cell_bias, batch_sizes, dh, dc, dinput, da, dweight,
                                  dbias, dcell_weight, dcell_bias, groups))
    return;
  dispatch(dy, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_backward<LayerNormLstmBackward, T>(dy, a, weight, dh, dinput, da);
    p.mean = input<A>(mean), p.rstd = input<A>(rstd);
    p.groups = make_groups<A, 4>(groups.data(), groups.size(), p.hidden);
    p.P = lines_of(dh.size(0)), p.partial = zero_lines(session, dweight, dbias, p.P, 4 * p.hidden);
    auto* cell_lines = zero_lines(session, dcell_weight, dcell_bias, p.P, p.hidden);
    p.lstm = lstm_backward<T>(gates, cells, raw_cells, previous_cells, dc, cell_weight, cell_bias, cell_lines);
    p.cell_mean = input<A>(cell_mean), p.cell_rstd = input<A>(cell_rstd);
    p.packed =
        packed_step<T>(p) && packed<T>({}, {p.lstm.gates, p.lstm.cells, p.lstm.raw_cells, p.lstm.previous_cells,
                                            p.lstm.dc, p.lstm.cell_weight.data, p.lstm.cell_bias.data, cell_lines});
    walk_backward(p, da ? *da : dinput, weight_hh, dh, batch_sizes, reverse, session.device);
    add_lines_up<T>(p.partial, dweight, dbias, p.P, 4 * p.hidden, session.device);
    add_lines_up<T>(cell_lines, dcell_weight, dcell_bias, p.P, p.hidden, session.device);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<layer_norm_lstm_fwd, layer_norm_lstm_bwd>(m, "layer_norm_lstm");
}

}  // namespace normkernels::cuda
