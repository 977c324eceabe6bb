"""Every public layer of the package, small: what the tests of all of them walk."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import normkernels as nk


class Layer(NamedTuple):
    """How to make one, and the shape of an input for it."""

    name: str
    args: tuple
    shape: tuple[int, ...]
    switches: dict

    def __str__(self) -> str:
        return self.name + "-per_step" * ("per_step_affine" in self.switches)

    def make(self, **switches) -> nn.Module:
        torch.manual_seed(0)
        return getattr(nk, self.name)(*self.args, **(self.switches | switches))

    def used(self, training: bool = True, dtype: torch.dtype = torch.float64, **switches) -> nn.Module:
        """With parameters that are not ones and zeros, and a state that a batch has moved."""
        module = self.make(dtype=dtype, **switches)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.3 * torch.randn_like(p))
            module(self.input(dtype, seed=7))
        return module.train(training)

    def input(self, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
        return (1 + 2 * torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


IMAGES = {"1d": (6, 4, 5), "2d": (3, 4, 3, 5), "3d": (3, 4, 2, 3, 3)}
BY_RANK = [
    Layer(kind + rank, (4,), shape, {"affine": True, "track_running_stats": True} if kind == "InstanceNorm" else {})
    for kind in ("BatchNorm", "BatchRenorm", "InstanceNorm", "OnlineNorm", "StreamingNorm")
    for rank, shape in IMAGES.items()
]
LAYERS = [
    *BY_RANK,
    Layer("DataNorm", (4, "batch"), (6, 4), {}),
    Layer("GroupNorm", (2, 4), (3, 4, 5), {}),
    Layer("LayerNorm", (4,), (6, 4), {}),
    Layer("LayerNorm2d", (4,), (3, 4, 3, 5), {}),
    Layer("RMSNorm", (4,), (6, 4), {}),
    *(Layer(f"Sync{kind}Norm", (4,), (3, 4, 3, 5), {}) for kind in ("Batch", "Online", "Streaming")),
    Layer("SyncBatchRenorm", (4,), (3, 4, 3, 5), {}),
    Layer("NormPropLinear", (4, 3), (6, 4), {"activation": "tanh"}),
    *(Layer(f"NormPropConv{rank}", (4, 3, 2), shape, {"activation": "tanh"}) for rank, shape in IMAGES.items()),
    *(Layer(name, (4, 3), (5, 6, 4), {}) for name in ("BatchNormRNN", "BatchNormLSTM")),
    Layer("BatchNormLSTM", (4, 3), (5, 6, 4), {"per_step_affine": True, "max_steps": 2}),
    *(Layer(f"LayerNorm{kind}", (4, 3), (5, 6, 4), {"num_layers": 2}) for kind in ("RNN", "LSTM", "GRU")),
    *(Layer(f"LayerNorm{kind}Cell", (4, 3), (6, 4), {}) for kind in ("RNN", "LSTM", "GRU")),
]
# the classes of a kind differ in the check of their ranks alone: to compile or export one of each kind is enough
RANKS = {"BatchNorm": "2d", "BatchRenorm": "1d", "InstanceNorm": "3d"}
RANKS |= {"OnlineNorm": "2d", "StreamingNorm": "3d", "NormPropConv": "1d"}
KINDS = [layer for layer in LAYERS if layer.name[-2:] == RANKS.get(layer.name[:-2], layer.name[-2:])]
# a tracer that follows one walk over time, of each kind of statistics, and one cell has followed those of other gates
GATED = ("BatchNormRNN", "LayerNormGRU", "LayerNormLSTMCell", "LayerNormGRUCell")
TRACED = [layer for layer in KINDS if layer.name not in GATED]
HAS_MODES = [layer for layer in LAYERS if list(layer.make().buffers())]  # eval() is nothing to the others


def each(layers: list[Layer]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("layer", layers, ids=str)


def each_in_its_modes(layers: list[Layer]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("layer", "training"),
        [
            pytest.param(layer, training, id=f"{layer}-{'train' if training else 'eval'}")
            for layer in layers
            for training in (True, False)[: 1 + (layer in HAS_MODES)]
        ],
    )


every_layer, every_kind, every_traced = each(LAYERS), each(KINDS), each(TRACED)
every_layer_and_mode, every_kind_and_mode = each_in_its_modes(LAYERS), each_in_its_modes(KINDS)
every_traced_and_mode = each_in_its_modes(TRACED)
every_trained_layer = each([a for a in LAYERS if a.name != "DataNorm"])


def first(outputs) -> Tensor:
    """The first tensor that a module returned."""
    return first(outputs[0]) if isinstance(outputs, tuple) else outputs


def output(module: nn.Module, *inputs: Tensor) -> Tensor:
    return first(module(*inputs))


def step(module: nn.Module, x: Tensor) -> None:
    """A forward and a backward."""
    module.zero_grad()
    output(module, x.detach().requires_grad_()).square().sum().backward()


def fresh(layer: Layer, module: nn.Module) -> nn.Module:
    """A new layer with the parameters and buffers of one that was used."""
    new = layer.make().to(next(module.parameters()).dtype).train(module.training)
    new.load_state_dict(module.state_dict())
    return new
