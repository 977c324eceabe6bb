// Group norm: the CPU kernels.
#include "cpu/channels/norm.h"

namespace normkernels {

NK_CPU(group_norm_fwd, channels_fwd)
NK_CPU(group_norm_bwd, channels_bwd)

}  // namespace normkernels
