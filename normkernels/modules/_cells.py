"""What the recurrent cells share: torch.nn's inputs and states, with a batch or without, around one step."""

from typing import Any, Never

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from normkernels._arguments import refuse
from normkernels._checks import ArgumentError, fail
from normkernels._messages import shown
from normkernels.modules._leaf import leaf
from normkernels.modules._normalised import Normalised
from normkernels.modules._recurrent import check_states


class Cell(Normalised):
    """Mixin in front of torch.nn.RNNCell, LSTMCell or GRUCell; a cell says what a step does."""

    weight_ih: Tensor
    hidden_size: int

    def _check(self, x: Tensor, states: tuple[Tensor, ...]) -> None:
        """In torch's words."""
        name, inputs, dtype = type(self).__name__, self.weight_ih.shape[1], self.weight_ih.dtype
        if x.shape[1] != inputs:
            raise ArgumentError(f"{name}: input has inconsistent input_size: got {x.shape[1]} expected {inputs}")
        for i, s in enumerate(states):
            if s.shape[0] != x.shape[0]:
                raise ArgumentError(
                    f"{name}: Input batch size {x.shape[0]} doesn't match hidden{i} batch size {s.shape[0]}"
                )
            if s.shape[1] != self.hidden_size:
                raise ArgumentError(
                    f"{name}: hidden{i} has inconsistent hidden_size: got {s.shape[1]}, expected {self.hidden_size}"
                )
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise ArgumentError(
                f"{name}: input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert the layer: layer.to({x.dtype})"
            )

    def _step(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The new states of a batch."""
        raise NotImplementedError

    def forward(
        self, input: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None = None, **unknown: Never
    ) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
        """As in torch.nn: the new state, or ``(h, c)``."""
        if isinstance(input, Proxy):
            return leaf(self, input, hx)
        if unknown:
            refuse(self, unknown)  # type: ignore[arg-type]
        name, two = type(self).__name__, isinstance(self, nn.LSTMCell)
        given: Any = () if hx is None else hx if two else (hx,)
        if not isinstance(input, Tensor):
            fail(name, "input", "be a torch.Tensor", shown(input))
        if hx is not None:
            check_states(name, hx, 2 if two else 1)
        names = [f"hx[{i}]" for i in range(2)] if two else ["hidden"]
        for what, t in zip(("input", *names), (input, *given), strict=False):
            if t.dim() not in (1, 2):
                raise ArgumentError(f"{name}: Expected {what} to be 1D or 2D, got {t.dim()}D instead")
            if t.dim() != input.dim():
                raise ArgumentError(f"{name}: {what} must be {input.dim()}D as input, got {t.dim()}D instead")
        x = input if input.dim() == 2 else input.unsqueeze(0)
        states = tuple(s if s.dim() == 2 else s.unsqueeze(0) for s in given)
        self._check(x, states)
        states = states or tuple(x.new_zeros(x.shape[0], self.hidden_size) for _ in range(2 if two else 1))
        found = tuple(s if input.dim() == 2 else s.squeeze(0) for s in self._step(x, states))
        return found if two else found[0]
