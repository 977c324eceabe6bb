// Group norm: the CPU kernels.
#include "cpu/channels/ops.h"
#include "schemas.h"

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def(normkernels::schema::group_norm_fwd);
  m.def(normkernels::schema::group_norm_bwd);
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("group_norm_fwd", TORCH_BOX(&normkernels::channels_fwd));
  m.impl("group_norm_bwd", TORCH_BOX(&normkernels::channels_bwd));
}
