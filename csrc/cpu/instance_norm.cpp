// Instance norm: the CPU kernels.
#include "cpu/channels/norm.h"

namespace normkernels {

NK_CPU(instance_norm_fwd, channels_fwd)
NK_CPU(instance_norm_bwd, channels_bwd)

}  // namespace normkernels
