"""The formula of the batch renorm paper, and layers to hold against it."""

import torch

import normkernels as nk

NO_RAMP = {"warmup_steps": 0, "r_ramp_steps": 0, "d_ramp_steps": 0}  # over after one call
NARROW = {"r_max": 1.3, "d_max": 0.4}


def layer(C=5, dims=1, dtype=torch.float64, seed=0, **settings):
    """A layer with a random weight and bias, whose ramp is over."""
    torch.manual_seed(seed)
    found = getattr(nk, f"BatchRenorm{dims}d")(C, dtype=dtype, **(NO_RAMP | settings))
    with torch.no_grad():
        found.weight.uniform_(0.5, 1.5)
        found.bias.normal_()
        if not found.warmup_steps:
            found.num_batches_tracked.fill_(1)
    return found


def numbers(*shape, seed=0, scale=2.0, shift=1.5):
    return shift + scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
