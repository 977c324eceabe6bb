"""Layer norm in recurrent layers and cells: which parameters there are, and the norm of the input's term."""

from typing import Any

import torch
from torch import Tensor
from torch.types import Device

from normkernels.modules._normalised import Normalised, in_dtype
from normkernels.modules._recurrent import Recurrent, States
from normkernels.ops import _recurrent
from normkernels.ops.group_norm import group_norm
from normkernels.ops.layer_norm import layer_norm


class LayerNormalised(Normalised):
    """Mixin of layers and cells; ``GATES`` of them lie in a weight."""

    GATES: int
    hidden_size: int
    bias: Any
    norm_over: str = "joint"
    norm_cell: str | None = None
    eps: float

    def _set_up(self, suffixes: list[str], switches: dict, device: Device, dtype: torch.dtype | None) -> None:
        name, wide = type(self).__name__, self.GATES * self.hidden_size
        _recurrent.check_groups(name, switches.get("norm_over", "joint"), self.GATES)
        _recurrent.check_cell_parameters(name, torch.empty(0), 0, switches.get("norm_cell"), None, None)
        separate = _recurrent.check_terms(name, switches["norm_terms"])
        for key, value in switches.items():
            setattr(self, key, value)
        sizes = {"norm_weight_ih": wide, "norm_weight_hh": wide} if separate else {"norm_weight": wide}
        if self.norm_cell is not None:
            sizes |= {"norm_weight_cell": self.hidden_size}
            sizes |= {"norm_bias_cell": self.hidden_size} if self.bias else {}
        self._add_norms(suffixes, sizes, device, dtype)

    def _norm_input(self, p: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        options = {"eps": self.eps, "backend": self.backend}
        if self.norm_over == "joint":
            return layer_norm(p, p.shape[-1:], weight, bias, **options)
        if self.norm_over == "gate":
            return group_norm(p.reshape(-1, p.shape[-1]), self.GATES, weight, bias, **options).view(p.shape)
        sizes = [2 * self.hidden_size, self.hidden_size]
        parts = [p.split(sizes, -1), weight.split(sizes), (None, None) if bias is None else bias.split(sizes)]
        return torch.cat([layer_norm(q, q.shape[-1:], w, b, **options) for q, w, b in zip(*parts, strict=True)], -1)

    def _call(self, function, x: Tensor, suffix: str, states: States, **options) -> Any:
        """The function on the terms of x, with the norm of the cell if there is one."""
        input, *others = self._terms(x, suffix, self._norm_input)
        names = ("h_0", "c_0")[: len(states)]
        options |= {k: in_dtype(s, input.dtype) for k, s in zip(names, states, strict=True)}
        if self.norm_cell is not None:
            for key in ("weight", "bias"):
                options["cell_" + key] = getattr(self, f"norm_{key}_cell{suffix}", None)
        if getattr(self, "proj_size", 0):
            options["weight_hr"] = getattr(self, f"weight_hr{suffix}")
        switches = {k: getattr(self, k) for k in self.SHOWN}
        return function(input, *others, **options, **switches)


class LayerNormRecurrent(LayerNormalised, Recurrent):
    """Mixin of the layers; ``FUNCTION`` is that of a sequence."""

    FUNCTION: Any
    FUNCTION_OPTIONS: tuple[str, ...] = ()

    def _layer(self, x, suffix, states, sizes, reverse) -> tuple[Tensor, ...]:
        options = {k: getattr(self, k) for k in self.FUNCTION_OPTIONS}
        return self._call(self.FUNCTION, x, suffix, states, batch_sizes=sizes, reverse=reverse, **options)
