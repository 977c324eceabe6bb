// Instance norm: the schemas, and the CPU kernels.
#include "cpu/channels/ops.h"

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def("instance_norm_fwd" NK_CHANNELS_FWD);
  m.def("instance_norm_bwd" NK_CHANNELS_BWD);
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("instance_norm_fwd", TORCH_BOX(&normkernels::channels_fwd));
  m.impl("instance_norm_bwd", TORCH_BOX(&normkernels::channels_bwd));
}
