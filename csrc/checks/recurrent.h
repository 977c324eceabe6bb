// The arguments of the recurrent family: rows of a sequence, those of step 0, then those of step 1, and so on.
#pragma once

#include <vector>

#include "checks/call.h"

namespace normkernels::check {

// A call's sizes, and the arguments that every layer has.
struct SequenceCall : Call {
  const int64_t total, gates;  // rows of all steps
  int64_t B, H, N, steps;      // rows of h, columns of a gate and of all gates

  SequenceCall(const char* op, const char* name, const Tensor& first, const char* state, const Tensor& h, int64_t gates,
               const std::optional<Tensor>& batch_sizes)
      : Call(op, name, first, 2), total(size(0)), gates(gates) {
    must(h.dim() == 2, state, "have shape (B, H)");
    B = h.size(0), H = h.size(1), N = gates * H;
    steps = batch_sizes ? packed_steps(*batch_sizes) : whole_steps(state);
  }

  // Rows of what is kept for backward: those of all steps, or of one
  int64_t read_forward(const Tensor& input, Argument weight_hh, Argument weight, Argument bias, Argument h, Argument y,
                       const Tensor& a) {
    must(a.dim() == 2 && (a.size(0) == total || a.size(0) == B), "a", "have the rows of all steps, or of one");
    read("input", input, Dtype::same, {total, N});
    read("weight_hh", weight_hh, Dtype::same, {N, H});
    read("weight", weight, Dtype::parameter, {N});
    read("bias", bias, Dtype::parameter, {N});
    write("h", h, Dtype::same, {B, H});
    write("y", y, Dtype::same, {total, H});
    write("a", a, Dtype::same, {a.size(0), N});
    return a.size(0);
  }
  void read_backward(Argument dy, Argument a, Argument weight_hh, Argument weight, Argument dh, Argument dinput,
                     Argument da, Argument dweight, Argument dbias) {
    read("dy", dy, Dtype::same, {total, H});
    read("a", a, Dtype::same, {total, N});
    read("weight_hh", weight_hh, Dtype::same, {N, H});
    read("weight", weight, Dtype::parameter, {N});
    write("dh", dh, Dtype::same, {B, H});
    write("dinput", dinput, Dtype::same, {total, N});
    write("da", da, Dtype::same, {total, N});
    write("dweight", dweight, Dtype::parameter, {N});
    write("dbias", dbias, Dtype::parameter, {N});
  }
  void check_nonlinearity(const std::string& name) const {
    must(name == "tanh" || name == "relu", "nonlinearity", "be tanh or relu");
  }
  // Gates of each group that is normalised together
  void check_groups(const std::vector<int64_t>& groups) const {
    int64_t left = gates;
    for (const int64_t n : groups) {
      must(n > 0 && n <= left, "groups", "be positive and add up to the gates");
      left -= n;
    }
    must(left == 0, "groups", "be positive and add up to the gates");
  }
  // Rows of the statistics of each step; of no rows nobody knows how many steps they are.
  int64_t steps_of(const Tensor& mean) const { return total == 0 && mean.dim() == 2 ? mean.size(0) : steps; }

 private:
  int64_t whole_steps(const char* state) const {
    if (total == 0) return 0;
    must(B > 0 && total % B == 0, state, "have a number of rows that divides those of the sequence");
    return total / B;
  }
  int64_t packed_steps(const Tensor& batch_sizes) const {
    const int64_t *sizes = read_sizes("batch_sizes", batch_sizes), count = batch_sizes.numel();
    must(sizes[0] == B, "batch_sizes", "begin with the rows of the state");
    int64_t before = B, left = total;
    for (int64_t t = 0; t < count; t++) {
      must(sizes[t] > 0 && sizes[t] <= before, "batch_sizes", "be positive and not increase");
      must(sizes[t] <= left, "batch_sizes", "add up to the rows of the sequence");
      before = sizes[t], left -= before;
    }
    must(left == 0, "batch_sizes", "add up to the rows of the sequence");
    return count;
  }
};

inline bool layer_norm_rnn_fwd(const Tensor& input, Argument weight_hh, Argument weight, Argument bias,
                               const std::optional<Tensor>& batch_sizes, const Tensor& h, Argument y, const Tensor& a,
                               Argument mean, Argument rstd, const std::string& nonlinearity) {
  SequenceCall call("layer_norm_rnn_fwd", "input", input, "h", h, 1, batch_sizes);
  call.check_nonlinearity(nonlinearity);
  const int64_t rows = call.read_forward(input, weight_hh, weight, bias, h, y, a);
  call.write("mean", mean, Dtype::statistic, {rows, 1});
  call.write("rstd", rstd, Dtype::statistic, {rows, 1});
  return call.any();
}

inline bool layer_norm_rnn_bwd(const Tensor& dy, Argument y, Argument a, Argument mean, Argument rstd,
                               Argument weight_hh, Argument weight, const std::optional<Tensor>& batch_sizes,
                               const Tensor& dh, Argument dinput, Argument da, Argument dweight, Argument dbias,
                               const std::string& nonlinearity) {
  SequenceCall call("layer_norm_rnn_bwd", "dy", dy, "dh", dh, 1, batch_sizes);
  call.check_nonlinearity(nonlinearity);
  call.read_backward(dy, a, weight_hh, weight, dh, dinput, da, dweight, dbias);
  call.read("y", y, Dtype::same, {call.total, call.H});
  call.read("mean", mean, Dtype::statistic, {call.total, 1});
  call.read("rstd", rstd, Dtype::statistic, {call.total, 1});
  return call.any();
}

inline bool batch_norm_rnn_fwd(const Tensor& input, Argument weight_hh, Argument weight, Argument bias,
                               const std::optional<Tensor>& batch_sizes, const Tensor& h, Argument y, const Tensor& a,
                               const Tensor& mean, Argument var, const std::string& nonlinearity) {
  SequenceCall call("batch_norm_rnn_fwd", "input", input, "h", h, 1, batch_sizes);
  call.check_nonlinearity(nonlinearity);
  call.read_forward(input, weight_hh, weight, bias, h, y, a);
  call.write("mean", mean, Dtype::statistic, {call.steps_of(mean), call.N});
  call.write("var", var, Dtype::statistic, {call.steps_of(mean), call.N});
  return call.any();
}

inline bool batch_norm_rnn_bwd(const Tensor& dy, Argument y, Argument a, const Tensor& mean, Argument var,
                               Argument weight_hh, Argument weight, const std::optional<Tensor>& batch_sizes,
                               const Tensor& dh, Argument dinput, Argument da, Argument dweight, Argument dbias,
                               const std::string& nonlinearity) {
  SequenceCall call("batch_norm_rnn_bwd", "dy", dy, "dh", dh, 1, batch_sizes);
  call.check_nonlinearity(nonlinearity);
  call.read_backward(dy, a, weight_hh, weight, dh, dinput, da, dweight, dbias);
  call.read("y", y, Dtype::same, {call.total, call.H});
  call.read("mean", mean, Dtype::statistic, {call.steps_of(mean), call.N});
  call.read("var", var, Dtype::statistic, {call.steps_of(mean), call.N});
  return call.any();
}

inline bool layer_norm_gru_fwd(const Tensor& input, Argument weight_hh, Argument weight, Argument bias,
                               const std::optional<Tensor>& batch_sizes, const Tensor& h, Argument y, const Tensor& a,
                               Argument mean, Argument rstd, Argument values, const std::vector<int64_t>& groups) {
  SequenceCall call("layer_norm_gru_fwd", "input", input, "h", h, 3, batch_sizes);
  call.check_groups(groups);
  const int64_t rows = call.read_forward(input, weight_hh, weight, bias, h, y, a), count = groups.size();
  call.write("mean", mean, Dtype::statistic, {rows, count});
  call.write("rstd", rstd, Dtype::statistic, {rows, count});
  call.write("gates", values, Dtype::same, {rows, call.N});
  return call.any();
}

inline bool layer_norm_gru_bwd(const Tensor& dy, Argument values, Argument previous, Argument a, Argument mean,
                               Argument rstd, Argument weight_hh, Argument weight, Argument bias,
                               const std::optional<Tensor>& batch_sizes, const Tensor& dh, Argument dinput, Argument da,
                               Argument dweight, Argument dbias, const std::vector<int64_t>& groups) {
  SequenceCall call("layer_norm_gru_bwd", "dy", dy, "dh", dh, 3, batch_sizes);
  call.check_groups(groups);
  const int64_t count = groups.size();
  call.read_backward(dy, a, weight_hh, weight, dh, dinput, da, dweight, dbias);
  call.read("gates", values, Dtype::same, {call.total, call.N});
  call.read("previous", previous, Dtype::same, {call.total, call.H});
  call.read("mean", mean, Dtype::statistic, {call.total, count});
  call.read("rstd", rstd, Dtype::statistic, {call.total, count});
  call.read("bias", bias, Dtype::parameter, {call.N});
  return call.any();
}

}  // namespace normkernels::check
