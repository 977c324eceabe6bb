"""Layers that carry a state, new and used, and a step of one."""

import pytest
import torch

import normkernels as nk

SHAPES = {"1d": (6, 12), "2d": (5, 12, 3, 4), "3d": (3, 12, 2, 3, 4)}
# so that decays, bounds and memories all show within a few steps
SETTINGS = {
    "OnlineNorm": {"alpha_fwd": 0.9, "alpha_bkw": 0.9},
    "BatchRenorm": {"momentum": 0.3, "warmup_steps": 1, "r_ramp_steps": 3, "d_ramp_steps": 2},
    "StreamingNorm": {"kappa": (0.6, 0.4, 0.8, 0.2), "beta": (0.5, 0.2, 0.3)},
}
STEMS = {"OnlineNorm": "online_norm", "BatchRenorm": "batch_renorm", "StreamingNorm": "streaming_norm"}
NAMES = [kind + rank for kind in SETTINGS for rank in SHAPES]
every_kind = pytest.mark.parametrize("kind", SETTINGS)
every_name = pytest.mark.parametrize("name", NAMES)


def numbers(shape, seed=0, dtype=torch.float64):
    return (1.5 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def new(name, **switches):
    """A layer with a random weight and bias."""
    module = getattr(nk, name)(12, **({"dtype": torch.float64} | SETTINGS[name[:-2]] | switches))
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(1 + 0.3 * torch.randn(p.shape))
    return module


def used(name, **switches):
    """The same after a few steps of training, and an input for it."""
    module = new(name, **switches)
    dtype = module.weight.dtype
    for i in range(3):
        step(module, numbers(SHAPES[name[-2:]], i, dtype))
        getattr(module, "weights_changed", lambda: None)()
    step(module, numbers(SHAPES[name[-2:]], 3, dtype))
    return module, numbers(SHAPES[name[-2:]], 4, dtype)


def cotangent(y):
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)


def step(module, x, forward=None):
    """The output and every gradient of a step of training."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = (module if forward is None else forward)(x)
    y.backward(cotangent(y))
    return [y.detach(), *(t.grad for t in (x, *module.parameters()) if t.requires_grad)]


def state(module):
    return {k: t.clone() for k, t in module.named_buffers()}


def same(a, b):
    """Bit for bit."""
    torch.testing.assert_close(a, b, rtol=0, atol=0)
