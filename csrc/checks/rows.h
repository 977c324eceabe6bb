// The arguments of the row family: x (M, N), or (B, N, S) where the units of a row lie S apart.
#pragma once

#include "checks/call.h"

namespace normkernels::check {

inline void residual_pair(const Call& call, Argument residual, Argument summed) {
  call.must(bool(residual) == bool(summed), "summed", "be given where residual is, and only there");
}

// Of (M, N); mean: none without centring. Whether there is anything to compute.
inline bool rows_fwd(const char* op, const Tensor& x, Argument residual, Argument weight, Argument bias, Argument y,
                     Argument summed, Argument mean, Argument rstd) {
  Call call(op, "x", x, 2);
  const int64_t M = call.size(0), N = call.size(1);
  call.read("x", x, Dtype::same, {M, N}, Layout::rows);
  call.read("residual", residual, Dtype::same, {M, N}, Layout::rows);
  call.read("weight", weight, Dtype::parameter, {N});
  call.read("bias", bias, Dtype::parameter, {N});
  call.write("y", y, Dtype::same, {M, N});
  call.write("summed", summed, Dtype::same, {M, N});
  call.write("mean", mean, Dtype::statistic, {M});
  call.write("rstd", rstd, Dtype::statistic, {M});
  residual_pair(call, residual, summed);
  return call.any();
}

inline bool rows_bwd(const char* op, Argument dy, Argument dsummed, const Tensor& x, Argument weight, Argument bias,
                     Argument mean, Argument rstd, Argument dx, Argument dweight, Argument dbias) {
  Call call(op, "x", x, 2);
  const int64_t M = call.size(0), N = call.size(1);
  call.read("dy", dy, Dtype::same, {M, N}, Layout::rows);
  call.read("dsummed", dsummed, Dtype::same, {M, N}, Layout::rows);
  call.read("x", x, Dtype::same, {M, N}, Layout::rows);
  call.read("weight", weight, Dtype::parameter, {N});
  call.read("bias", bias, Dtype::parameter, {N});
  call.read("mean", mean, Dtype::statistic, {M});
  call.read("rstd", rstd, Dtype::statistic, {M});
  call.write("dx", dx, Dtype::same, {M, N});
  call.write("dweight", dweight, Dtype::parameter, {N});
  call.write("dbias", dbias, Dtype::parameter, {N});
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
