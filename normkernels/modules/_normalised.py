"""What recurrent layers and cells share: the norms' parameters, and the terms of a step."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from normkernels._backends import check_name
from normkernels.ops._products import linear

NORMS = ("norm_", "running_", "num_batches")  # how the names of their parameters and buffers start


def in_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Under autocast in that dtype, as the products are; else as it is, for the function to judge."""
    return t.to(dtype) if t.dtype != dtype and torch.is_autocast_enabled(t.device.type) else t


class Normalised:
    """Mixin of layers and cells: the norms' parameters, by the names that follow ``norm_``, and the switches."""

    SHOWN: dict[str, Any]  # switches and their defaults
    gain: float = 1.0  # of the norms at first
    backend: str | None
    norm_terms: str
    register_parameter: Callable[[str, nn.Parameter | None], None]

    def _add_norms(
        self, suffixes: list[str], sizes: Mapping[str, Any], device: Device, dtype: torch.dtype | None
    ) -> None:
        check_name(self.backend, type(self).__name__)
        for suffix in suffixes:
            for name, size in sizes.items():
                self.register_parameter(name + suffix, nn.Parameter(torch.empty(size, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's first values; norms start as ``gain`` and 0."""
        super().reset_parameters()  # type: ignore[misc]
        for name, parameter in self.named_parameters():  # type: ignore[attr-defined]
            if name.startswith("norm_"):
                nn.init.constant_(parameter, self._first(name))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        """Weights of a layer without norms load too: the norms then stay as they are.

        Where tensors are assigned, they go to the device and dtype of those that came; from meta with first values.
        """
        own: dict[str, Tensor] = {**self._parameters, **self._buffers}  # type: ignore[attr-defined]
        norms = {name: t for name, t in own.items() if name.startswith(NORMS) and t is not None}
        if not any(prefix + name in state_dict for name in norms):
            came = [t for k, t in state_dict.items() if k.startswith(prefix) and isinstance(t, Tensor)]
            assigned = came if local_metadata.get("assign_to_params_buffers") else []
            state_dict.update({prefix + name: self._kept(name, t.detach(), assigned) for name, t in norms.items()})
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)  # type: ignore[misc]

    def _kept(self, name: str, t: Tensor, beside: list[Tensor]) -> Tensor:
        """t as it is; beside weights of another device or dtype as they are, on meta its first value."""
        if not beside:
            return t
        made = {"device": beside[0].device, "dtype": beside[0].dtype if t.is_floating_point() else t.dtype}
        return torch.full_like(t, self._first(name), **made) if t.is_meta else t.to(**made)

    def _first(self, name: str) -> float:
        """The first value of a norm's parameter or buffer."""
        if name.startswith(("norm_bias", "running_mean", "num_batches")):
            return 0.0
        return 1.0 if name.startswith("running_var") else self.gain

    def extra_repr(self) -> str:
        shown = [f"{k}={getattr(self, k)!r}" for k, default in self.SHOWN.items() if getattr(self, k) != default]
        return ", ".join([super().extra_repr(), *shown])  # type: ignore[misc]

    def _terms(self, x: Tensor, suffix: str, norm_input: Callable[..., Tensor]) -> tuple[Any, ...]:
        """The input's term, weight_hh, weight and bias of the recurrence; biases come after the norms."""

        def of(name: str) -> Any:
            return getattr(self, name + suffix, None)

        p, bias_ih, bias_hh = linear(x, of("weight_ih")), of("bias_ih"), of("bias_hh")
        weight_hh = in_dtype(of("weight_hh"), p.dtype)
        if self.norm_terms == "separate":
            return norm_input(p, of("norm_weight_ih"), bias_ih), weight_hh, of("norm_weight_hh"), bias_hh
        return p, weight_hh, of("norm_weight"), None if bias_ih is None else bias_ih + bias_hh
