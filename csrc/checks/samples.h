// The arguments of online norm, which has statistics of each channel of each sample: tables (N, C).
#pragma once

#include "checks/channels.h"

namespace normkernels::check {

// The moments of a sample about the state that it met: where it has more than one value, and somebody asks.
inline void read_sums(const ChannelsCall& call, Argument xhat_mean, Argument xhat_square, bool asked) {
  const bool wanted = call.S > 1 && asked;
  call.must(bool(xhat_mean) == wanted, "xhat_mean", wanted ? "be given here" : "not be given here");
  call.must(bool(xhat_square) == wanted, "xhat_square", "be given where xhat_mean is, and only there");
}

inline bool online_norm_fwd(const Tensor& x, Argument skip, Argument weight, Argument bias, Argument running_mean,
                            Argument running_var, Argument rates, Argument y, Argument mean, Argument rstd,
                            Argument xhat_mean, Argument xhat_square, Argument gain, Argument new_mean,
                            Argument new_var, bool last) {
  ChannelsCall call("online_norm_fwd", x, last);
  const int64_t N = call.N, C = call.C;
  call.must(bool(new_mean) == bool(rates), "new_mean", "be given where rates are, and only there");
  call.must(bool(new_var) == bool(rates), "new_var", "be given where rates are, and only there");
  read_sums(call, xhat_mean, xhat_square, rates || gain);
  call.read_input(x, skip, weight, bias);
  call.read("running_mean", running_mean, Dtype::statistic, {C});
  call.read("running_var", running_var, Dtype::statistic, {C});
  call.read("rates", rates, Dtype::float64, {N});
  call.write_like_x("y", y);
  call.write("mean", mean, Dtype::statistic, {N, C});
  call.write("rstd", rstd, Dtype::statistic, {N, C});
  call.write("xhat_mean", xhat_mean, Dtype::statistic, {N, C});
  call.write("xhat_square", xhat_square, Dtype::statistic, {N, C});
  call.write("gain", gain, Dtype::statistic, {N});
  call.write("new_mean", new_mean, Dtype::statistic, {C});
  call.write("new_var", new_var, Dtype::statistic, {C});
  return call.any();
}

inline bool online_norm_bwd(Argument dy, const Tensor& x, Argument skip, Argument weight, Argument bias, Argument mean,
                            Argument rstd, Argument xhat_mean, Argument xhat_square, Argument gain, Argument epsilon_y,
                            Argument epsilon_1, Argument dx, Argument dskip, Argument dweight, Argument dbias,
                            Argument new_epsilon_y, Argument new_epsilon_1, bool last) {
  ChannelsCall call("online_norm_bwd", x, last);
  const int64_t N = call.N, C = call.C;
  call.must(bool(epsilon_1) == bool(epsilon_y), "epsilon_1", "be given where epsilon_y is, and only there");
  call.must(bool(new_epsilon_y) == bool(epsilon_y), "new_epsilon_y", "be given where epsilon_y is, and only there");
  call.must(bool(new_epsilon_1) == bool(epsilon_y), "new_epsilon_1", "be given where epsilon_y is, and only there");
  read_sums(call, xhat_mean, xhat_square, epsilon_y || gain);
  call.read_like_x("dy", dy);
  call.read_input(x, skip, weight, bias);
  call.read("mean", mean, Dtype::statistic, {N, C});
  call.read("rstd", rstd, Dtype::statistic, {N, C});
  call.read("xhat_mean", xhat_mean, Dtype::statistic, {N, C});
  call.read("xhat_square", xhat_square, Dtype::statistic, {N, C});
  call.read("gain", gain, Dtype::statistic, {N});
  call.read("epsilon_y", epsilon_y, Dtype::statistic, {C});
  call.read("epsilon_1", epsilon_1, Dtype::statistic, {C});
  call.write_gradients(dx, dskip, dweight, dbias);
  call.write("new_epsilon_y", new_epsilon_y, Dtype::statistic, {C});
  call.write("new_epsilon_1", new_epsilon_1, Dtype::statistic, {C});
  return call.any();
}

}  // namespace normkernels::check
