"""Streaming Normalization by hand in numpy, and layers to hold against it."""

import torch

import normkernels as nk
from normkernels.cases import OPS

OP = OPS["streaming_norm"]
PAPER = {"alpha": (0.5, 0.5), "beta": (0.5, 0.2, 0.3), "kappa": (0.6, 0.4, 0.8, 0.2)}
CURRENT = {"alpha": (0.0, 1.0), "beta": (0.0, 0.0, 1.0)}


def layer(C=5, dims=1, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    module = getattr(nk, f"StreamingNorm{dims}d")(C, dtype=dtype, **settings)
    with torch.no_grad():
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_()
    return module


def numbers(*shape, seed=0, scale=2.0, shift=1.5):
    return shift + scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(module, x, dy=None):
    """y and every gradient."""
    x = x.detach().requires_grad_()
    y = module(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype) if dy is None else dy
    return [y.detach(), *torch.autograd.grad(y, [x, module.weight, module.bias], dy)]
