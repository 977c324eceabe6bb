// Batch norm, whole and in the parts that one process of many computes: the CPU kernels.
#include "cpu/channels/ops.h"
#include "schemas.h"

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def(normkernels::schema::batch_norm_fwd);
  m.def(normkernels::schema::batch_norm_bwd);
  m.def(normkernels::schema::batch_norm_apply);
  m.def(normkernels::schema::batch_norm_moments);
  m.def(normkernels::schema::batch_norm_sums);
  m.def(normkernels::schema::batch_norm_dx);
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("batch_norm_fwd", TORCH_BOX(&normkernels::channels_fwd));
  m.impl("batch_norm_bwd", TORCH_BOX(&normkernels::channels_bwd));
  m.impl("batch_norm_apply", TORCH_BOX(&normkernels::channels_apply));
  m.impl("batch_norm_moments", TORCH_BOX(&normkernels::channels_moments));
  m.impl("batch_norm_sums", TORCH_BOX(&normkernels::channels_sums));
  m.impl("batch_norm_dx", TORCH_BOX(&normkernels::channels_dx));
}
