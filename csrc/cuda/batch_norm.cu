// Batch norm, whole and in the parts that one process of many computes.
#include "cuda/channels/ops.h"

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  normkernels::cuda::implement<normkernels::cuda::channels_fwd_op, normkernels::cuda::channels_bwd_op>(m, "batch_norm");
  m.impl("batch_norm_apply", NK_BOX(&normkernels::cuda::channels_apply_op));
  m.impl("batch_norm_moments", NK_BOX(&normkernels::cuda::channels_moments_op));
  m.impl("batch_norm_sums", NK_BOX(&normkernels::cuda::channels_sums_op));
  m.impl("batch_norm_dx", NK_BOX(&normkernels::cuda::channels_dx_op));
}
