"""What the recurrent layers share: torch.nn's inputs, states, layers and directions, around one call for each."""

from typing import Any, Never

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from normkernels._arguments import refuse
from normkernels._checks import fail
from normkernels._messages import shown
from normkernels.modules._leaf import leaf
from normkernels.modules._normalised import Normalised

States = tuple[Tensor, ...]


def check_states(name: str, hx: Any, count: int) -> None:
    """A tensor, or the pair of an LSTM."""
    pair = isinstance(hx, tuple | list)
    if count == 2 and not (pair and len(hx) == 2 and all(isinstance(s, Tensor) for s in hx)):
        fail(name, "hx", "be a pair of tensors (h_0, c_0)", shown(hx), "zeros are layer(input)")
    if count == 1 and not isinstance(hx, Tensor):
        fail(name, "hx", "be a tensor h_0", shown(hx), "it has no cell c_0" if pair else "")


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

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | States | None = None, **unknown: Never
    ) -> tuple[Tensor | PackedSequence, Tensor | States]:
        """As in torch.nn: ``output, h_n``, or ``output, (h_n, c_n)``."""
        if isinstance(input, Proxy):
            return leaf(self, input, hx)
        if unknown:
            refuse(self, unknown)
        if isinstance(input, PackedSequence):
            data, sizes, order, back = input
            states = self._states(data, hx, int(sizes[0]))
            self._check(data, states, sizes)
            states = states if order is None else tuple(s.index_select(1, order) for s in states)
            y, states = self._layers(data, states, sizes)
            states = states if back is None else tuple(s.index_select(1, back) for s in states)
            return PackedSequence(y, sizes, order, back), self._handed_out(states)
        name = type(self).__name__
        if not isinstance(input, Tensor):
            fail(name, "input", "be a torch.Tensor or a PackedSequence", shown(input))
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

    def _states(self, input: Tensor, hx: Any, batch: int) -> States:
        """hx, or zeros."""
        if hx is not None:
            check_states(type(self).__name__, hx, self.STATES)
            return tuple(hx) if self.STATES == 2 else (hx,)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: self.STATES]
        return tuple(input.new_zeros(len(self.suffixes()), batch, size) for size in sizes)

    def _handed_out(self, states: States) -> Tensor | States:
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
