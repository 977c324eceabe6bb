// Group norm: the schemas, and the CPU kernels.
#include "cpu/channels/ops.h"

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def("group_norm_fwd" NK_CHANNELS_FWD);
  m.def("group_norm_bwd" NK_CHANNELS_BWD);
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("group_norm_fwd", TORCH_BOX(&normkernels::channels_fwd));
  m.impl("group_norm_bwd", TORCH_BOX(&normkernels::channels_bwd));
}
