"""The loop of the online norm's paper in numpy, and the op from the same start."""

import torch

from normkernels.cases import OPS

OP = OPS["online_norm"]
STATE = ("running_mean", "running_var", "epsilon_1", "epsilon_y")
GUARDS = ("layer_scaling", "clamp", None)
SETTINGS = {
    "alpha_fwd": 0.9,
    "alpha_bkw": 0.95,
    "eps": 1e-5,
    "guard": None,
    "ls_eps": 1e-5,
    "clamp": 1.0,
    "stable": False,
}


def numbers(*shape, seed=0, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(C, dtype=torch.float64, device="cpu"):
    """Weight, bias and state of a layer in use: near to what N(0.5, 1.5^2) would leave."""
    w, b, mean, var, u, e = numbers(6, C, seed=7, scale=0.3)
    found = 1 + w, b, 0.5 + mean, 2.25 * torch.exp(var), u, e
    return [t.to(device, dtype, copy=True) for t in found]


def ours(x, dy, weight, bias, state, backend=None, **settings):
    """y, dx, dweight, dbias; the state moves."""
    named = {"input": x, "weight": weight, "bias": bias}
    named = {k: t.detach().requires_grad_() for k, t in named.items()}
    settings = SETTINGS | {"training": True} | settings
    y = OP.function(**named, **dict(zip(STATE, state, strict=True)), **settings, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, list(named.values()), dy)]
