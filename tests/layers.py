"""Every module of the package, small: what the tests that are about all of them walk."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import normkernels as nk


@dataclass(frozen=True)
class Layer:
    """A module that is quickly made, and the shape of an input."""

    name: str
    make: Callable[..., torch.nn.Module]  # of the keyword arguments that all take: device, dtype, backend
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return self.name

    def module(self, training: bool = True, dtype: torch.dtype = torch.float64, **options) -> torch.nn.Module:
        """With parameters that are not ones and zeros, and running statistics that a batch has moved."""
        torch.manual_seed(0)
        module = self.make(dtype=dtype, **options)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.3 * torch.randn_like(p))
            module(self.input(dtype, seed=7))
        return module.train(training)

    def input(self, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.shape, generator=generator, dtype=torch.float64).to(dtype)


def first(outputs) -> Tensor:
    """The first tensor that a module returns."""
    return first(outputs[0]) if isinstance(outputs, tuple) else outputs


IMAGES = {"1d": (3, 4, 5), "2d": (3, 4, 2, 3), "3d": (2, 4, 2, 2, 3)}
SHAPES = {
    "LayerNorm": ((6,), (5, 6)), "RMSNorm": ((6,), (5, 6)), "LayerNorm2d": ((4,), (2, 4, 3, 2)),
    "GroupNorm": ((2, 4), (3, 4, 2, 3)), "NormPropLinear": ((4, 5), (3, 4)), "DataNorm": ((4,), (6, 4)),
    "LayerNormRNN": ((3, 4), (2, 3, 3)), "LayerNormLSTM": ((3, 4), (2, 3, 3)), "LayerNormGRU": ((3, 4), (2, 3, 3)),
    "BatchNormRNN": ((3, 4), (2, 3, 3)), "BatchNormLSTM": ((3, 4), (2, 3, 3)),
    "LayerNormRNNCell": ((3, 4), (3, 3)), "LayerNormLSTMCell": ((3, 4), (3, 3)), "LayerNormGRUCell": ((3, 4), (3, 3)),
}  # fmt: skip
for dims, shape in IMAGES.items():
    norms = "BatchNorm", "InstanceNorm", "BatchRenorm", "OnlineNorm", "StreamingNorm"
    SHAPES |= {f"{name}{dims}": ((4,), shape) for name in norms}
    SHAPES[f"NormPropConv{dims}"] = ((4, 3, 2), shape)
# what makes a layer show all that it has: most have extras, some have a state that a switch turns on
SWITCHES = {
    "InstanceNorm": {"affine": True, "track_running_stats": True}, "BatchRenorm": {"warmup_steps": 0},
    "DataNorm": {"mode": "running"}, "StreamingNorm": {"beta": (0.3, 0.2, 0.5)}, "OnlineNorm": {"alpha_fwd": 0.9},
}  # fmt: skip
NAMES = [name for name in nk.__all__ if inspect.isclass(getattr(nk, name))]


def layer(name: str) -> Layer:
    args, shape = SHAPES[name]
    switches = SWITCHES.get(name.rstrip("d").rstrip("123"), {})
    return Layer(name, lambda **options: getattr(nk, name)(*args, **switches, **options), shape)


LAYERS = [layer(name) for name in NAMES]
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=str)
