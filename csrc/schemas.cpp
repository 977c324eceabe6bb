// The schemas of the native ops, which are those of normkernels/ops without the backend: written by
// `python tests/compiled/schemas.py --write`, not by hand.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def(
      "batch_norm_apply(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, Tensor(a!) y, "
      "float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "batch_norm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
      "Tensor(a!) dx, Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, float eps, bool training, "
      "str activation, float slope, bool channels_last) -> ()");
  m.def(
      "batch_norm_dx(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
      "Tensor mean_dy, Tensor mean_dy_xhat, Tensor(a!) dx, Tensor(b!)? dskip, float eps, str activation, "
      "float slope, bool channels_last) -> ()");
  m.def(
      "batch_norm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor(a!) y, Tensor(b!) mean, "
      "Tensor(c!) var, float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "batch_norm_lstm_bwd(Tensor dy, Tensor gates, Tensor cells, Tensor? raw_cells, Tensor? cell_mean, "
      "Tensor? cell_var, Tensor previous_cells, Tensor a, Tensor mean, Tensor var, Tensor weight_hh, Tensor? weight, "
      "Tensor? cell_weight, Tensor? cell_bias, Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dc, Tensor(c!) dinput, "
      "Tensor(d!)? da, Tensor(e!)? dweight, Tensor(f!)? dbias, Tensor(g!)? dcell_weight, Tensor(h!)? dcell_bias, "
      "bool training, float eps, bool reverse) -> ()");
  m.def(
      "batch_norm_lstm_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? cell_weight, "
      "Tensor? cell_bias, Tensor? batch_sizes, Tensor(a!) h, Tensor(b!) c, Tensor(c!) y, Tensor(d!) a, "
      "Tensor(e!) mean, Tensor(f!) var, Tensor(g!) gates, Tensor(h!) cells, Tensor(i!)? raw_cells, "
      "Tensor(j!)? cell_mean, Tensor(k!)? cell_var, bool training, bool separate, float eps, bool reverse) -> ()");
  m.def("batch_norm_moments(Tensor x, Tensor(a!) mean, Tensor(b!) var, bool channels_last) -> ()");
  m.def(
      "batch_norm_rnn_bwd(Tensor dy, Tensor y, Tensor a, Tensor mean, Tensor var, Tensor weight_hh, Tensor? weight, "
      "Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dinput, Tensor(c!)? da, Tensor(d!)? dweight, "
      "Tensor(e!)? dbias, bool training, str nonlinearity, float eps, bool reverse) -> ()");
  m.def(
      "batch_norm_rnn_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? batch_sizes, "
      "Tensor(a!) h, Tensor(b!) y, Tensor(c!) a, Tensor(d!) mean, Tensor(e!) var, bool training, bool separate, "
      "str nonlinearity, float eps, bool reverse) -> ()");
  m.def(
      "batch_norm_sums(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
      "Tensor(a!) sum_dy, Tensor(b!) sum_dy_xhat, float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "batch_renorm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
      "Tensor r, Tensor d, Tensor(a!) dx, Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, float eps, "
      "str activation, float slope, bool channels_last) -> ()");
  m.def(
      "batch_renorm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor running_mean, "
      "Tensor running_std, Tensor r_max, Tensor d_max, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) var, Tensor(d!) r, "
      "Tensor(e!) d, float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "group_norm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
      "Tensor(a!) dx, Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, float eps, bool training, "
      "str activation, float slope, bool channels_last) -> ()");
  m.def(
      "group_norm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor(a!) y, Tensor(b!) mean, "
      "Tensor(c!) var, float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "instance_norm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
      "Tensor(a!) dx, Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, float eps, bool training, "
      "str activation, float slope, bool channels_last) -> ()");
  m.def(
      "instance_norm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor(a!) y, Tensor(b!) mean, "
      "Tensor(c!) var, float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "layer_norm_2d_bwd(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, "
      "Tensor rstd, Tensor(a!) dx, Tensor(b!)? dweight, Tensor(c!)? dbias, float weight_offset, str activation, "
      "float slope) -> ()");
  m.def(
      "layer_norm_2d_fwd(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, Tensor(a!) y, Tensor(b!)? summed, "
      "Tensor(c!) mean, Tensor(d!) rstd, float eps, float weight_offset, str activation, float slope) -> ()");
  m.def(
      "layer_norm_bwd(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor? bias, Tensor? gate, Tensor mean, "
      "Tensor rstd, Tensor(a!) dx, Tensor(b!)? dweight, Tensor(c!)? dbias, Tensor(d!)? dgate, float weight_offset, "
      "str activation, float slope) -> ()");
  m.def(
      "layer_norm_fwd(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, Tensor? gate, Tensor(a!) y, "
      "Tensor(b!)? summed, Tensor(c!) mean, Tensor(d!) rstd, float eps, float weight_offset, str activation, "
      "float slope) -> ()");
  m.def(
      "layer_norm_gru_bwd(Tensor dy, Tensor gates, Tensor previous, Tensor a, Tensor mean, Tensor rstd, "
      "Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dinput, "
      "Tensor(c!)? da, Tensor(d!)? dweight, Tensor(e!)? dbias, int[] groups, bool reverse) -> ()");
  m.def(
      "layer_norm_gru_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? batch_sizes, "
      "Tensor(a!) h, Tensor(b!) y, Tensor(c!) a, Tensor(d!) mean, Tensor(e!) rstd, Tensor(f!) gates, int[] groups, "
      "bool separate, float eps, bool reverse) -> ()");
  m.def(
      "layer_norm_lstm_bwd(Tensor dy, Tensor gates, Tensor cells, Tensor? raw_cells, Tensor? cell_mean, "
      "Tensor? cell_rstd, Tensor previous_cells, Tensor a, Tensor mean, Tensor rstd, Tensor weight_hh, "
      "Tensor? weight, Tensor? cell_weight, Tensor? cell_bias, Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dc, "
      "Tensor(c!) dinput, Tensor(d!)? da, Tensor(e!)? dweight, Tensor(f!)? dbias, Tensor(g!)? dcell_weight, "
      "Tensor(h!)? dcell_bias, int[] groups, bool reverse) -> ()");
  m.def(
      "layer_norm_lstm_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? cell_weight, "
      "Tensor? cell_bias, Tensor? batch_sizes, Tensor(a!) h, Tensor(b!) c, Tensor(c!) y, Tensor(d!) a, "
      "Tensor(e!) mean, Tensor(f!) rstd, Tensor(g!) gates, Tensor(h!) cells, Tensor(i!)? raw_cells, "
      "Tensor(j!)? cell_mean, Tensor(k!)? cell_rstd, int[] groups, bool separate, float eps, bool reverse) -> ()");
  m.def(
      "layer_norm_rnn_bwd(Tensor dy, Tensor y, Tensor a, Tensor mean, Tensor rstd, Tensor weight_hh, Tensor? weight, "
      "Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dinput, Tensor(c!)? da, Tensor(d!)? dweight, "
      "Tensor(e!)? dbias, str nonlinearity, bool reverse) -> ()");
  m.def(
      "layer_norm_rnn_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? batch_sizes, "
      "Tensor(a!) h, Tensor(b!) y, Tensor(c!) a, Tensor(d!) mean, Tensor(e!) rstd, bool separate, str nonlinearity, "
      "float eps, bool reverse) -> ()");
  m.def(
      "normprop_bwd(Tensor dy, Tensor saved, Tensor? bias, Tensor? slope, Tensor(a!) du, Tensor(b!)? dbias, "
      "Tensor(c!)? dslope, str activation, float leak, float scale, float shift, float low, float high, "
      "bool from_output, bool channels_last) -> ()");
  m.def(
      "normprop_fwd(Tensor u, Tensor? bias, Tensor? slope, Tensor(a!) y, str activation, float leak, float scale, "
      "float shift, float kink_low, float kink_high, float low, float high, bool channels_last) -> ()");
  m.def(
      "online_norm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd, "
      "Tensor? xhat_mean, Tensor? xhat_square, Tensor? gain, Tensor? epsilon_y, Tensor? epsilon_1, Tensor(a!) dx, "
      "Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, Tensor(e!)? new_epsilon_y, "
      "Tensor(f!)? new_epsilon_1, float alpha, bool stable, float clamp, str activation, float slope, "
      "bool channels_last) -> ()");
  m.def(
      "online_norm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor running_mean, "
      "Tensor running_var, Tensor? rates, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) rstd, Tensor(d!)? xhat_mean, "
      "Tensor(e!)? xhat_square, Tensor(f!)? gain, Tensor(g!)? new_mean, Tensor(h!)? new_var, float eps, "
      "float ls_eps, float clamp, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "rms_norm_bwd(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor? bias, Tensor? gate, Tensor rstd, "
      "Tensor(a!) dx, Tensor(b!)? dweight, Tensor(c!)? dbias, Tensor(d!)? dgate, float weight_offset, "
      "str activation, float slope) -> ()");
  m.def(
      "rms_norm_fwd(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, Tensor? gate, Tensor(a!) y, "
      "Tensor(b!)? summed, Tensor(c!) rstd, float eps, float weight_offset, str activation, float slope) -> ()");
  m.def(
      "streaming_norm_bwd(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor found, "
      "Tensor used, Tensor? deviations, Tensor long_term, Tensor short_term, Tensor counts, Tensor(a!) dx, "
      "Tensor(b!)? dskip, Tensor(c!)? dweight, Tensor(d!)? dbias, Tensor(e!) new_short_term, float long, "
      "float short, float current, float p, float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "streaming_norm_fwd(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor long_term, Tensor short_term, "
      "Tensor counts, Tensor(a!) y, Tensor(b!) found, Tensor(c!) used, Tensor(d!)? deviations, "
      "Tensor(e!) new_short_term, float long, float short, float p, float eps, str activation, float slope, "
      "bool channels_last) -> ()");
  m.def("weight_norm_bwd(Tensor dw, Tensor v, Tensor g, Tensor norm, Tensor(a!) dv, Tensor(b!)? dg) -> ()");
  m.def("weight_norm_fwd(Tensor v, Tensor g, Tensor(a!) w, Tensor(b!) norm) -> ()");
  m.def(
      "weight_standardization_bwd(Tensor dy, Tensor w, Tensor? gain, Tensor mean, Tensor rstd, Tensor(a!) dw, "
      "Tensor(b!)? dgain) -> ()");
  m.def(
      "weight_standardization_fwd(Tensor w, Tensor? gain, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) rstd, "
      "float eps) -> ()");
}
