"""Forwards for Hugging Face's ``kernels``, which puts them in the place of those that transformers marks by a name."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normkernels._checks import fail
from normkernels.conversion.peers import EPS
from normkernels.ops.rms_norm import rms_norm

DEVICES = ("cpu", "cuda")


class Layer(NamedTuple):
    """What ``kernels`` takes for a repository: something hashable that loads a class."""

    layer_name: str
    kind: Hashable

    def load(self) -> Hashable:
        return self.kind


class RMSNorm(nn.Module):
    """Llama's, Mistral's, Qwen's: output in the wider dtype of input and weight."""

    can_torch_compile = True
    has_backward = True

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight: Tensor = self.weight  # type: ignore[assignment]
        input = hidden_states.to(torch.promote_types(hidden_states.dtype, weight.dtype))
        return rms_norm(input, tuple(weight.shape), weight, _eps(self))


class RMSNormZeroCentered(nn.Module):
    """With 1 + weight: output in input's dtype."""

    can_torch_compile = True
    has_backward = True

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight  # type: ignore[assignment]
        return rms_norm(x, tuple(weight.shape), weight, _eps(self), weight_offset=1.0)


class RMSNormGated(nn.Module):
    """Qwen3-Next's, Kimi Linear's: norm(x) w activation(gate) in the wider dtype of both, output in input's."""

    can_torch_compile = True
    has_backward = True

    def forward(self, hidden_states: Tensor, gate: Tensor) -> Tensor:
        weight: Tensor = self.weight  # type: ignore[assignment]
        activation: Any = self.activation
        dtype = torch.promote_types(hidden_states.dtype, gate.dtype)
        input, shape = hidden_states.to(dtype), tuple(weight.shape)
        y = rms_norm(input, shape, weight, _eps(self), gate=gate.to(dtype), activation=activation)
        return y.to(hidden_states.dtype)


LAYERS = (RMSNorm, RMSNormGated, RMSNormZeroCentered)


def kernel_mapping(devices: tuple[str, ...] = DEVICES) -> dict[str, dict[str, Layer]]:
    """What ``kernels.use_kernel_mapping`` and ``register_kernel_mapping`` take: RMS norms by the names of transformers.

    For every mode, training and torch.compile included. ``kernels`` then gives a model's norms these forwards;
    parameters and module objects stay. Nothing is downloaded.

    Args:
        devices: which of ``"cpu"`` and ``"cuda"``.

    Returns:
        name -> device -> layer: ``"RMSNorm"``, ``"RMSNormGated"`` and ``"RMSNormZeroCentered"``.

    Raises:
        ValueError: a device is none of these.

    Example:
        >>> sorted(nk.kernel_mapping())
        ['RMSNorm', 'RMSNormGated', 'RMSNormZeroCentered']
    """
    for device in devices:
        if device not in DEVICES:
            fail("kernel_mapping", "devices", f"be of {', '.join(map(repr, DEVICES))}", repr(device))
    return {k.__name__: {device: Layer(k.__name__, k) for device in devices} for k in LAYERS}


def _eps(norm: nn.Module) -> float:
    return next(getattr(norm, name) for name in EPS if hasattr(norm, name))
