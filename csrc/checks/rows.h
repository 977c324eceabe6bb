// The arguments of the row family: x (M, N), or (..., N) with up to three dims of rows, where these lie at several
// distances; or (B, N, S) where the units of a row lie S apart.
#pragma once

#include "checks/call.h"

namespace normkernels::check {

inline void residual_pair(const Call& call, Argument residual, Argument summed) {
  call.must(bool(residual) == bool(summed), "summed", "be given where residual is, and only there");
}

// How many samples the rows of x are, as many rows each: those for which weight and bias have a row, (B, N). One where
// they are (N,), which all rows share.
inline bool is_table(Argument t) { return t && t.tensor->dim() == 2; }
inline int64_t samples(Argument weight, Argument bias) {
  const Argument given = weight ? weight : bias;
  return is_table(given) ? given.tensor->size(0) : 1;
}

// Weight, bias and their gradients, of one row or of one for each sample
class RowParameters {
 public:
  RowParameters(Call& call, Argument weight, Argument bias)
      : call_(call), samples_(samples(weight, bias)), tables_(is_table(weight ? weight : bias)) {
    const bool whole = samples_ > 0 ? call.rows() % samples_ == 0 : call.rows() == 0;
    call.must(whole, weight ? "weight" : "bias", "have a row for each sample, of as many rows of x each");
  }
  void read(const char* name, Argument t) {
    if (tables_) return call_.read(name, t, Dtype::parameter, {samples_, call_.columns()});
    call_.read(name, t, Dtype::parameter, {call_.columns()});
  }
  void write(const char* name, Argument t) {
    if (tables_) return call_.write(name, t, Dtype::parameter, {samples_, call_.columns()});
    call_.write(name, t, Dtype::parameter, {call_.columns()});
  }

 private:
  Call& call_;
  int64_t samples_;
  bool tables_;
};

// Of M rows of N; mean: none without centring. Whether there is anything to compute.
inline bool rows_fwd(const char* op, const Tensor& x, Argument residual, Argument weight, Argument bias, Argument gate,
                     Argument y, Argument summed, Argument mean, Argument rstd) {
  Call call(op, "x", x, 2, kMostRanks);
  const int64_t M = call.rows(), N = call.columns();
  RowParameters parameters(call, weight, bias);
  call.read("x", x, Dtype::same, {M, N}, Layout::rows);
  call.read("residual", residual, Dtype::same, {M, N}, Layout::rows);
  parameters.read("weight", weight);
  parameters.read("bias", bias);
  call.read("gate", gate, Dtype::same, {M, N}, Layout::rows);
  call.write("y", y, Dtype::same, {M, N});
  call.write("summed", summed, Dtype::same, {M, N});
  call.write("mean", mean, Dtype::statistic, {M});
  call.write("rstd", rstd, Dtype::statistic, {M});
  residual_pair(call, residual, summed);
  return call.any();
}

inline bool rows_bwd(const char* op, Argument dy, Argument dsummed, const Tensor& x, Argument weight, Argument bias,
                     Argument gate, Argument mean, Argument rstd, Argument dx, Argument dweight, Argument dbias,
                     Argument dgate) {
  Call call(op, "x", x, 2, kMostRanks);
  const int64_t M = call.rows(), N = call.columns();
  RowParameters parameters(call, weight, bias);
  call.read("dy", dy, Dtype::same, {M, N}, Layout::rows);
  call.read("dsummed", dsummed, Dtype::same, {M, N}, Layout::rows);
  call.read("x", x, Dtype::same, {M, N}, Layout::rows);
  parameters.read("weight", weight);
  parameters.read("bias", bias);
  call.read("gate", gate, Dtype::same, {M, N}, Layout::rows);
  call.read("mean", mean, Dtype::statistic, {M});
  call.read("rstd", rstd, Dtype::statistic, {M});
  call.write("dx", dx, Dtype::same, {M, N});
  parameters.write("dweight", dweight);
  parameters.write("dbias", dbias);
  call.write("dgate", dgate, Dtype::same, {M, N});
  call.must(gate || !dgate, "dgate", "be given only where gate is");
  return call.any();
}

// Of (B, N, S)
inline bool strided_rows_fwd(const char* op, const Tensor& x, Argument residual, Argument weight, Argument bias,
                             Argument y, Argument summed, Argument mean, Argument rstd) {
  Call call(op, "x", x, 3);
  const int64_t B = call.size(0), N = call.size(1), S = call.size(2);
  call.read("x", x, Dtype::same, {B, N, S});
  call.read("residual", residual, Dtype::same, {B, N, S});
  call.read("weight", weight, Dtype::parameter, {N});
  call.read("bias", bias, Dtype::parameter, {N});
  call.write("y", y, Dtype::same, {B, N, S});
  call.write("summed", summed, Dtype::same, {B, N, S});
  call.write("mean", mean, Dtype::statistic, {B, S});
  call.write("rstd", rstd, Dtype::statistic, {B, S});
  residual_pair(call, residual, summed);
  return call.any();
}

inline bool strided_rows_bwd(const char* op, Argument dy, Argument dsummed, const Tensor& x, Argument weight,
                             Argument bias, Argument mean, Argument rstd, Argument dx, Argument dweight,
                             Argument dbias) {
  Call call(op, "x", x, 3);
  const int64_t B = call.size(0), N = call.size(1), S = call.size(2);
  call.read("dy", dy, Dtype::same, {B, N, S});
  call.read("dsummed", dsummed, Dtype::same, {B, N, S});
  call.read("x", x, Dtype::same, {B, N, S});
  call.read("weight", weight, Dtype::parameter, {N});
  call.read("bias", bias, Dtype::parameter, {N});
  call.read("mean", mean, Dtype::statistic, {B, S});
  call.read("rstd", rstd, Dtype::statistic, {B, S});
  call.write("dx", dx, Dtype::same, {B, N, S});
  call.write("dweight", dweight, Dtype::parameter, {N});
  call.write("dbias", dbias, Dtype::parameter, {N});
  return call.any();
}

}  // namespace normkernels::check
