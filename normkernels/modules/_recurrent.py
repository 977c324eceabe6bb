"""What the recurrent layers share: torch.nn's inputs, states, layers and directions, around one call for each."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from normkernels._checks import ArgumentError, fail
from normkernels.backends import check_name
from normkernels.modules._leaf import leaf

States = tuple[Tensor, ...]
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

    def _add_norms(self, suffixes: list[str], sizes: dict[str, int], device, dtype) -> None:
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

        p, bias_ih, bias_hh = F.linear(x, of("weight_ih")), of("bias_ih"), of("bias_hh")
        weight_hh = in_dtype(of("weight_hh"), p.dtype)
        if self.norm_terms == "separate":
            return norm_input(p, of("norm_weight_ih"), bias_ih), weight_hh, of("norm_weight_hh"), bias_hh
        return p, weight_hh, of("norm_weight"), None if bias_ih is None else bias_ih + bias_hh


class Recurrent(Normalised, nn.RNNBase):
    """A layer says what one direction of one layer does. Not an nn.RNN, LSTM or GRU: torch.compile leaves these out."""

    STATES: int  # that a step hands on: h, or h and c

    def _layer(self, x: Tensor, suffix: str, states: States, sizes: Tensor | None, reverse: bool) -> tuple[Tensor, ...]:
        """(y, *states) of one direction of one layer."""
        raise NotImplementedError

    def suffixes(self) -> list[str]:
        """Of the names of parameters, layer by layer: ``_l0``, ``_l0_reverse``, ``_l1``, ..."""
        directions = ["", "_reverse"] if self.bidirectional else [""]
        return [f"_l{layer}{direction}" for layer in range(self.num_layers) for direction in directions]

    def flatten_parameters(self) -> None:
        """There is nothing to do: the layout of cuDNN's weights is not used."""

    @property
    def _flat_weights(self) -> list:  # type: ignore[override]
        """Torch's list for cuDNN, never kept: a weight that a parametrization computed could not be copied."""
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, weights: list) -> None:
        pass

    def _init_flat_weights(self) -> None:
        pass

    def _update_flat_weights(self) -> None:
        pass

    def forward(self, input, hx=None):
        """As in torch.nn: ``output, h_n``, or ``output, (h_n, c_n)``."""
        if isinstance(input, Proxy):
            return leaf(self, input, hx)
        if isinstance(input, PackedSequence):
            data, sizes, order, back = input
            states = self._states(data, hx, int(sizes[0]))
            self._check(data, states, sizes)
            states = states if order is None else tuple(s.index_select(1, order) for s in states)
            y, states = self._layers(data, states, sizes)
            states = states if back is None else tuple(s.index_select(1, back) for s in states)
            return PackedSequence(y, sizes, order, back), self._handed_out(states)
        name = type(self).__name__
        if input.dim() not in (2, 3):
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched, batch_dim = input.dim() == 3, 0 if self.batch_first else 1
        if hx is not None and any(s.dim() != input.dim() for s in self._states(input, hx, 0)):
            raise RuntimeError(f"{name}: for {input.dim()}-D input, the states should also be {input.dim()}-D")
        x = input if batched else input.unsqueeze(batch_dim)
        states = self._states(x, hx, x.shape[batch_dim])
        states = states if batched or hx is None else tuple(s.unsqueeze(1) for s in states)
        self._check(x, states, None)
        y, states = self._layers(x.transpose(0, 1) if self.batch_first else x, states, None)
        y = y.transpose(0, 1) if self.batch_first else y
        if not batched:
            y, states = y.squeeze(batch_dim), tuple(s.squeeze(1) for s in states)
        return y, self._handed_out(states)

    def _states(self, input: Tensor, hx, batch: int) -> States:
        """hx, or zeros."""
        if hx is not None:
            return tuple(hx) if self.STATES == 2 else (hx,)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: self.STATES]
        return tuple(input.new_zeros(len(self.suffixes()), batch, size) for size in sizes)

    def _handed_out(self, states: States):
        return states if self.STATES == 2 else states[0]

    def _check(self, input: Tensor, states: States, sizes: Tensor | None) -> None:
        self.check_input(input, sizes)
        if sizes is None and input.shape[1 if self.batch_first else 0] == 0:
            fail(type(self).__name__, "input", "have at least one step", f"shape {tuple(input.shape)}")
        for name, state in zip(("h_0", "c_0"), states, strict=False):
            expected = self.get_expected_hidden_size(input, sizes)
            expected = expected if name == "h_0" else (*expected[:2], self.hidden_size)
            self.check_hidden_size(state, expected, f"{type(self).__name__}: Expected {name} size {{}}, got {{}}")

    def _layers(self, x: Tensor, firsts: States, sizes: Tensor | None) -> tuple[Tensor, States]:
        """Every layer in every direction; x: (T, B, input_size), or packed."""
        lasts: list[States] = []
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            ys = []
            for direction in range(directions):
                k = len(lasts)
                states = tuple(s[k] for s in firsts)
                y, *last = self._layer(x, self.suffixes()[k], states, sizes, reverse=direction == 1)
                ys.append(y)
                lasts.append(tuple(last))
            x = torch.cat(ys, -1) if directions == 2 else ys[0]
            if self.dropout and layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(torch.stack(s) for s in zip(*lasts, strict=True))


class Cell(Normalised):
    """Mixin in front of torch.nn.RNNCell, LSTMCell or GRUCell; a cell says what a step does."""

    weight_ih: Tensor
    hidden_size: int

    def _check(self, x: Tensor, states: States) -> None:
        """In torch's words."""
        name, inputs = type(self).__name__, self.weight_ih.shape[1]
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

    def _step(self, x: Tensor, states: States) -> tuple[Tensor, ...]:
        """The new states of a batch."""
        raise NotImplementedError

    def forward(self, input, hx=None):
        """As in torch.nn: the new state, or ``(h, c)``."""
        if isinstance(input, Proxy):
            return leaf(self, input, hx)
        name, two = type(self).__name__, isinstance(self, nn.LSTMCell)
        given = () if hx is None else hx if two else (hx,)
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
