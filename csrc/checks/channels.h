// The arguments of the channel family: x (N, C, S), or (N, S, C) where the channels lie last; all of it contiguous.
#pragma once

#include "checks/call.h"

namespace normkernels::check {

// What follows weight and bias in batch, group and instance norm. Where the activation is called gated_..., it is that
// of a gate, which lies in the place of skip: y = u act(gate), and dskip is the gradient of the gate.
struct Epilogue {
  bool gated;
  std::string activation;

  Epilogue(const char* op, const std::string& name, Argument skip)
      : gated(name.rfind("gated_", 0) == 0), activation(gated ? name.substr(6) : name) {
    STD_TORCH_CHECK(!gated || skip, op, ": skip must be given where the activation is that of a gate");
  }
};

// A call's sizes, and the arguments that every member has.
struct ChannelsCall : Call {
  const bool last;
  const int64_t N, C, S;

  ChannelsCall(const char* op, const Tensor& x, bool last, const char* name = "x")
      : Call(op, name, x, 3), last(last), N(size(0)), C(size(last ? 2 : 1)), S(size(last ? 1 : 2)) {}

  void read_like_x(const char* name, Argument t) { read(name, t, Dtype::same, {N, size(1), size(2)}); }
  void write_like_x(const char* name, Argument t) { write(name, t, Dtype::same, {N, size(1), size(2)}); }
  void read_input(const Tensor& x, Argument skip, Argument weight, Argument bias) {
    read_like_x("x", x);
    read_like_x("skip", skip);
    read("weight", weight, Dtype::parameter, {C});
    read("bias", bias, Dtype::parameter, {C});
  }
  void write_gradients(Argument dx, Argument dskip, Argument dweight, Argument dbias) {
    write_like_x("dx", dx);
    write_like_x("dskip", dskip);
    write("dweight", dweight, Dtype::parameter, {C});
    write("dbias", dbias, Dtype::parameter, {C});
  }
  // A number for each channel, (C,) or (1, C)
  void read_row(const char* name, const Tensor& t) {
    t.dim() == 1 ? read(name, t, Dtype::statistic, {C}) : read(name, t, Dtype::statistic, {1, C});
  }
  void write_row(const char* name, const Tensor& t) {
    t.dim() == 1 ? write(name, t, Dtype::statistic, {C}) : write(name, t, Dtype::statistic, {1, C});
  }
  // Statistics of the batch: where the channels lie last, it is one long image.
  void is_one_image() const { must(!last || N == 1, "x", "be one long image where the channels lie last"); }
};

// The rows and columns of mean and var: (B, G), or (C,) for (1, C). A statistic pools N / B images and C / G adjacent
// channels; channels that lie last are not pooled over images.
struct Statistics {
  int64_t B, G;

  Statistics(const ChannelsCall& call, const Tensor& mean) {
    const auto sizes = mean.sizes();
    const bool table = sizes.size() == 2;
    call.must(table || (sizes.size() == 1 && sizes[0] == call.C), "mean", "have shape (B, G)");
    B = table ? sizes[0] : 1, G = table ? sizes[1] : call.C;
    call.must(B > 0 && call.N % B == 0, "mean", "have a number of rows that divides the images of x");
    call.must(G > 0 && call.C % G == 0, "mean", "have a number of columns that divides the channels of x");
    call.must(!call.last || B == call.N, "mean", "have a row for each image of x where the channels lie last");
  }
  void read(ChannelsCall& call, const char* name, const Tensor& t) const {
    t.dim() == 1 && B == 1 && G == call.C ? call.read_row(name, t) : call.read(name, t, Dtype::statistic, {B, G});
  }
  void write(ChannelsCall& call, const char* name, const Tensor& t) const {
    t.dim() == 1 && B == 1 && G == call.C ? call.write_row(name, t) : call.write(name, t, Dtype::statistic, {B, G});
  }
};

inline bool channels_fwd(const char* op, const Tensor& x, Argument skip, Argument weight, Argument bias, Argument y,
                         const Tensor& mean, const Tensor& var, bool last) {
  ChannelsCall call(op, x, last);
  call.read_input(x, skip, weight, bias);
  call.write_like_x("y", y);
  const Statistics s(call, mean);
  s.write(call, "mean", mean);
  s.write(call, "var", var);
  return call.any();
}

inline bool channels_apply(const char* op, const Tensor& x, Argument skip, Argument weight, Argument bias,
                           const Tensor& mean, const Tensor& var, Argument y, bool last) {
  ChannelsCall call(op, x, last);
  call.read_input(x, skip, weight, bias);
  const Statistics s(call, mean);
  s.read(call, "mean", mean);
  s.read(call, "var", var);
  call.write_like_x("y", y);
  return call.any();
}

inline bool channels_bwd(const char* op, Argument dy, const Tensor& x, Argument skip, Argument weight, Argument bias,
                         const Tensor& mean, const Tensor& var, Argument dx, Argument dskip, Argument dweight,
                         Argument dbias, bool last) {
  ChannelsCall call(op, x, last);
  call.read_like_x("dy", dy);
  call.read_input(x, skip, weight, bias);
  const Statistics s(call, mean);
  s.read(call, "mean", mean);
  s.read(call, "var", var);
  call.write_gradients(dx, dskip, dweight, dbias);
  return call.any();
}

// What batch_norm_sums and batch_norm_dx begin with: statistics are those of a batch.
inline void read_part(ChannelsCall& call, Argument dy, const Tensor& x, Argument skip, Argument weight, Argument bias,
                      const Tensor& mean, const Tensor& var) {
  call.is_one_image();
  call.read_like_x("dy", dy);
  call.read_input(x, skip, weight, bias);
  call.read_row("mean", mean);
  call.read_row("var", var);
}

inline bool batch_norm_sums(Argument dy, const Tensor& x, Argument skip, Argument weight, Argument bias,
                            const Tensor& mean, const Tensor& var, const Tensor& sum_dy, const Tensor& sum_dy_xhat,
                            bool last) {
  ChannelsCall call("batch_norm_sums", x, last);
  read_part(call, dy, x, skip, weight, bias, mean, var);
  call.write_row("sum_dy", sum_dy);
  call.write_row("sum_dy_xhat", sum_dy_xhat);
  return call.any();
}

inline bool batch_norm_dx(Argument dy, const Tensor& x, Argument skip, Argument weight, Argument bias,
                          const Tensor& mean, const Tensor& var, const Tensor& mean_dy, const Tensor& mean_dy_xhat,
                          Argument dx, Argument dskip, bool last) {
  ChannelsCall call("batch_norm_dx", x, last);
  read_part(call, dy, x, skip, weight, bias, mean, var);
  call.read_row("mean_dy", mean_dy);
  call.read_row("mean_dy_xhat", mean_dy_xhat);
  call.write_gradients(dx, dskip, std::nullopt, std::nullopt);
  return call.any();
}

// Online norm has statistics of each channel of each sample: tables (N, C).
//
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
