// Instance norm.
#include "cuda/channels/ops.h"

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  m.impl("instance_norm_fwd", TORCH_BOX(&normkernels::cuda::channels_fwd_op));
  m.impl("instance_norm_bwd", TORCH_BOX(&normkernels::cuda::channels_bwd_op));
}
