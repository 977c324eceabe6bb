// Group norm.
#include "cuda/channels/ops.h"

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  m.impl("group_norm_fwd", TORCH_BOX(&normkernels::cuda::channels_fwd_op));
  m.impl("group_norm_bwd", TORCH_BOX(&normkernels::cuda::channels_bwd_op));
}
