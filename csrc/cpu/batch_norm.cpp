// Batch norm, whole and in the parts that one process of many computes: the schemas, and the CPU kernels.
#include "cpu/channels/ops.h"

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def("batch_norm_fwd" NK_CHANNELS_FWD);
  m.def("batch_norm_bwd" NK_CHANNELS_BWD);
  m.def(
      "batch_norm_apply(Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, Tensor(a!) y, "
      "float eps, str activation, float slope, bool channels_last) -> ()");
  m.def("batch_norm_moments(Tensor x, Tensor(a!) mean, Tensor(b!) var, bool channels_last) -> ()");
  m.def(
      "batch_norm_sums(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
      "Tensor(a!) sum_dy, Tensor(b!) sum_dy_xhat, float eps, str activation, float slope, bool channels_last) -> ()");
  m.def(
      "batch_norm_dx(Tensor dy, Tensor x, Tensor? skip, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, Tensor "
      "mean_dy, Tensor mean_dy_xhat, Tensor(a!) dx, Tensor(b!)? dskip, float eps, str activation, float slope, bool "
      "channels_last) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("batch_norm_fwd", TORCH_BOX(&normkernels::channels_fwd));
  m.impl("batch_norm_bwd", TORCH_BOX(&normkernels::channels_bwd));
  m.impl("batch_norm_apply", TORCH_BOX(&normkernels::channels_apply));
  m.impl("batch_norm_moments", TORCH_BOX(&normkernels::channels_moments));
  m.impl("batch_norm_sums", TORCH_BOX(&normkernels::channels_sums));
  m.impl("batch_norm_dx", TORCH_BOX(&normkernels::channels_dx));
}
