// The arguments of the channel family's members that have a rule of their own between the sweeps.
#pragma once

#include "checks/channels.h"

namespace normkernels::check {

inline bool batch_renorm_fwd(const Tensor& x, Argument skip, Argument weight, Argument bias, const Tensor& running_mean,
                             const Tensor& running_std, Argument r_max, Argument d_max, Argument y, const Tensor& mean,
                             const Tensor& var, const Tensor& r, const Tensor& d, bool last) {
  ChannelsCall call("batch_renorm_fwd", x, last);
  call.is_one_image();
  call.read_input(x, skip, weight, bias);
  call.read_row("running_mean", running_mean);
  call.read_row("running_std", running_std);
  call.read("r_max", r_max, Dtype::statistic, {});
  call.read("d_max", d_max, Dtype::statistic, {});
  call.write_like_x("y", y);
  call.write_row("mean", mean);
  call.write_row("var", var);
  call.write_row("r", r);
  call.write_row("d", d);
  return call.any();
}

inline bool batch_renorm_bwd(Argument dy, const Tensor& x, Argument skip, Argument weight, Argument bias,
                             const Tensor& mean, const Tensor& var, const Tensor& r, const Tensor& d, Argument dx,
                             Argument dskip, Argument dweight, Argument dbias, bool last) {
  ChannelsCall call("batch_renorm_bwd", x, last);
  call.is_one_image();
  call.read_like_x("dy", dy);
  call.read_input(x, skip, weight, bias);
  call.read_row("mean", mean);
  call.read_row("var", var);
  call.read_row("r", r);
  call.read_row("d", d);
  call.write_gradients(dx, dskip, dweight, dbias);
  return call.any();
}

// Streaming norm's statistics, and its memories of them: (2, C), means and scales.
struct StreamingCall : ChannelsCall {
  StreamingCall(const char* op, const Tensor& x, Argument deviations, double p, bool last) : ChannelsCall(op, x, last) {
    is_one_image();
    must(bool(deviations) == (p != 2), "deviations", "be given where p is not 2, and only there");
  }
  void read_memory(Argument long_term, Argument short_term, Argument counts) {
    read("long_term", long_term, Dtype::statistic, {2, C});
    read("short_term", short_term, Dtype::statistic, {2, C});
    read("counts", counts, Dtype::statistic, {2});
  }
};

inline bool streaming_norm_fwd(const Tensor& x, Argument skip, Argument weight, Argument bias, Argument long_term,
                               Argument short_term, Argument counts, Argument y, Argument found, Argument used,
                               Argument deviations, Argument new_short_term, double p, bool last) {
  StreamingCall call("streaming_norm_fwd", x, deviations, p, last);
  call.read_input(x, skip, weight, bias);
  call.read_memory(long_term, short_term, counts);
  call.write_like_x("y", y);
  call.write("found", found, Dtype::statistic, {2, call.C});
  call.write("used", used, Dtype::statistic, {2, call.C});
  call.write("deviations", deviations, Dtype::statistic, {call.C});
  call.write("new_short_term", new_short_term, Dtype::statistic, {2, call.C});
  return call.any();
}

inline bool streaming_norm_bwd(Argument dy, const Tensor& x, Argument skip, Argument weight, Argument bias,
                               Argument found, Argument used, Argument deviations, Argument long_term,
                               Argument short_term, Argument counts, Argument dx, Argument dskip, Argument dweight,
                               Argument dbias, Argument new_short_term, double p, bool last) {
  StreamingCall call("streaming_norm_bwd", x, deviations, p, last);
  call.read_like_x("dy", dy);
  call.read_input(x, skip, weight, bias);
  call.read("found", found, Dtype::statistic, {2, call.C});
  call.read("used", used, Dtype::statistic, {2, call.C});
  call.read("deviations", deviations, Dtype::statistic, {call.C});
  call.read_memory(long_term, short_term, counts);
  call.write_gradients(dx, dskip, dweight, dbias);
  call.write("new_short_term", new_short_term, Dtype::statistic, {2, call.C});
  return call.any();
}

// NormProp's epilogue; y may be u, and a slope for each channel is prelu's alone.
inline bool normprop_fwd(const Tensor& u, Argument bias, Argument slope, const Tensor& y, const std::string& activation,
                         bool last) {
  ChannelsCall call("normprop_fwd", u, last, "u");
  call.must(bool(slope) == (activation == "prelu"), "slope", "be given with activation prelu, and only then");
  call.read_like_x("u", u);
  call.write_in_place("y", y, Dtype::same, {call.N, call.size(1), call.size(2)});
  call.read("bias", bias, Dtype::parameter, {call.C});
  call.read("slope", slope, Dtype::parameter, {call.C});
  return call.any();
}

inline bool normprop_bwd(const Tensor& dy, Argument saved, Argument bias, Argument slope, Argument du, Argument dbias,
                         Argument dslope, const std::string& activation, bool last) {
  ChannelsCall call("normprop_bwd", dy, last, "dy");
  call.must(bool(slope) == (activation == "prelu"), "slope", "be given with activation prelu, and only then");
  call.must(slope || !dslope, "dslope", "be wanted where slope is given alone");
  call.read_like_x("dy", dy);
  call.read_like_x("saved", saved);
  call.read("bias", bias, Dtype::parameter, {call.C});
  call.read("slope", slope, Dtype::parameter, {call.C});
  call.write_like_x("du", du);
  call.write("dbias", dbias, Dtype::parameter, {call.C});
  call.write("dslope", dslope, Dtype::parameter, {call.C});
  return call.any();
}

}  // namespace normkernels::check
