// The arguments of the LSTMs: a layer's, and those of its cells, in the dtype of the arithmetic.
#pragma once

#include "checks/recurrent.h"

namespace normkernels::check {

// The arguments that concern the cells; a norm of theirs has both statistics, and raw cells are handed on normalised.
struct Cells {
  Argument cells, raw_cells, mean, spread, weight, bias;
  const char* spread_name;  // cell_rstd or cell_var

  void check(const Call& call) const {
    call.must(bool(mean) == bool(spread), spread_name, "be given where cell_mean is, and only there");
    call.must(mean || !raw_cells, "raw_cells", "be given only where cell_mean is");
  }
  void read_parameters(SequenceCall& call) const {
    call.read("cell_weight", weight, Dtype::parameter, {call.H});
    call.read("cell_bias", bias, Dtype::parameter, {call.H});
  }
  // Kept of so many rows; statistics in a table of that shape
  void write(SequenceCall& call, Argument c, Argument gates, int64_t rows, Sizes statistics) const {
    check(call);
    read_parameters(call);
    call.write("c", c, Dtype::statistic, {call.B, call.H});
    call.write("gates", gates, Dtype::same, {rows, call.N});
    call.write("cells", cells, Dtype::statistic, {rows, call.H});
    call.write("raw_cells", raw_cells, Dtype::statistic, {rows, call.H});
    call.write("cell_mean", mean, Dtype::statistic, statistics);
    call.write(spread_name, spread, Dtype::statistic, statistics);
  }
  void read(SequenceCall& call, Argument gates, Argument previous_cells, Sizes statistics) const {
    check(call);
    read_parameters(call);
    call.read("gates", gates, Dtype::same, {call.total, call.N});
    call.read("cells", cells, Dtype::statistic, {call.total, call.H});
    call.read("raw_cells", raw_cells, Dtype::statistic, {call.total, call.H});
    call.read("previous_cells", previous_cells, Dtype::statistic, {call.total, call.H});
    call.read("cell_mean", mean, Dtype::statistic, statistics);
    call.read(spread_name, spread, Dtype::statistic, statistics);
  }
};

inline void write_cell_gradients(SequenceCall& call, Argument dc, Argument dweight, Argument dbias) {
  call.write("dc", dc, Dtype::statistic, {call.B, call.H});
  call.write("dcell_weight", dweight, Dtype::parameter, {call.H});
  call.write("dcell_bias", dbias, Dtype::parameter, {call.H});
}

inline bool layer_norm_lstm_fwd(const Tensor& input, Argument weight_hh, Argument weight, Argument bias,
                                Argument cell_weight, Argument cell_bias, const std::optional<Tensor>& batch_sizes,
                                const Tensor& h, Argument c, Argument y, const Tensor& a, Argument mean, Argument rstd,
                                Argument gates, Argument cells, Argument raw_cells, Argument cell_mean,
                                Argument cell_rstd, const std::vector<int64_t>& groups) {
  SequenceCall call("layer_norm_lstm_fwd", "input", input, "h", h, 4, batch_sizes);
  call.check_groups(groups);
  const int64_t rows = call.read_forward(input, weight_hh, weight, bias, h, y, a), count = groups.size();
  call.write("mean", mean, Dtype::statistic, {rows, count});
  call.write("rstd", rstd, Dtype::statistic, {rows, count});
  const Cells of_cells{cells, raw_cells, cell_mean, cell_rstd, cell_weight, cell_bias, "cell_rstd"};
  of_cells.write(call, c, gates, rows, {rows, 1});
  return call.any();
}

inline bool layer_norm_lstm_bwd(const Tensor& dy, Argument gates, Argument cells, Argument raw_cells,
                                Argument cell_mean, Argument cell_rstd, Argument previous_cells, Argument a,
                                Argument mean, Argument rstd, Argument weight_hh, Argument weight, Argument cell_weight,
                                Argument cell_bias, const std::optional<Tensor>& batch_sizes, const Tensor& dh,
                                Argument dc, Argument dinput, Argument da, Argument dweight, Argument dbias,
                                Argument dcell_weight, Argument dcell_bias, const std::vector<int64_t>& groups) {
  SequenceCall call("layer_norm_lstm_bwd", "dy", dy, "dh", dh, 4, batch_sizes);
  call.check_groups(groups);
  const int64_t count = groups.size();
  call.read_backward(dy, a, weight_hh, weight, dh, dinput, da, dweight, dbias);
  call.read("mean", mean, Dtype::statistic, {call.total, count});
  call.read("rstd", rstd, Dtype::statistic, {call.total, count});
  const Cells of_cells{cells, raw_cells, cell_mean, cell_rstd, cell_weight, cell_bias, "cell_rstd"};
  of_cells.read(call, gates, previous_cells, {call.total, 1});
  write_cell_gradients(call, dc, dcell_weight, dcell_bias);
  return call.any();
}

inline bool batch_norm_lstm_fwd(const Tensor& input, Argument weight_hh, Argument weight, Argument bias,
                                Argument cell_weight, Argument cell_bias, const std::optional<Tensor>& batch_sizes,
                                const Tensor& h, Argument c, Argument y, const Tensor& a, const Tensor& mean,
                                Argument var, Argument gates, Argument cells, Argument raw_cells, Argument cell_mean,
                                Argument cell_var) {
  SequenceCall call("batch_norm_lstm_fwd", "input", input, "h", h, 4, batch_sizes);
  const int64_t rows = call.read_forward(input, weight_hh, weight, bias, h, y, a), steps = call.steps_of(mean);
  call.write("mean", mean, Dtype::statistic, {steps, call.N});
  call.write("var", var, Dtype::statistic, {steps, call.N});
  const Cells of_cells{cells, raw_cells, cell_mean, cell_var, cell_weight, cell_bias, "cell_var"};
  of_cells.write(call, c, gates, rows, {steps, call.H});
  return call.any();
}

inline bool batch_norm_lstm_bwd(const Tensor& dy, Argument gates, Argument cells, Argument raw_cells,
                                Argument cell_mean, Argument cell_var, Argument previous_cells, Argument a,
                                const Tensor& mean, Argument var, Argument weight_hh, Argument weight,
                                Argument cell_weight, Argument cell_bias, const std::optional<Tensor>& batch_sizes,
                                const Tensor& dh, Argument dc, Argument dinput, Argument da, Argument dweight,
                                Argument dbias, Argument dcell_weight, Argument dcell_bias) {
  SequenceCall call("batch_norm_lstm_bwd", "dy", dy, "dh", dh, 4, batch_sizes);
  const int64_t steps = call.steps_of(mean);
  call.read_backward(dy, a, weight_hh, weight, dh, dinput, da, dweight, dbias);
  call.read("mean", mean, Dtype::statistic, {steps, call.N});
  call.read("var", var, Dtype::statistic, {steps, call.N});
  const Cells of_cells{cells, raw_cells, cell_mean, cell_var, cell_weight, cell_bias, "cell_var"};
  of_cells.read(call, gates, previous_cells, {steps, call.H});
  write_cell_gradients(call, dc, dcell_weight, dcell_bias);
  return call.any();
}

}  // namespace normkernels::check
