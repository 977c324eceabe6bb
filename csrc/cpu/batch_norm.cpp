// Batch norm, whole and in the parts that one process of many computes: the CPU kernels.
#include "cpu/channels/norm.h"

namespace normkernels {

NK_CPU(batch_norm_fwd, channels_fwd)
NK_CPU(batch_norm_bwd, channels_bwd)
NK_CPU(batch_norm_apply, channels_apply)
NK_CPU(batch_norm_moments, channels_moments)
NK_CPU(batch_norm_sums, channels_sums)
NK_CPU(batch_norm_dx, channels_dx)

}  // namespace normkernels
