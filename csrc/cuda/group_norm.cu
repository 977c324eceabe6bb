// Group norm.
#include "cuda/channels/ops.h"

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  normkernels::cuda::implement<normkernels::cuda::channels_fwd_op, normkernels::cuda::channels_bwd_op>(m, "group_norm");
}
