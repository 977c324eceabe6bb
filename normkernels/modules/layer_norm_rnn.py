"""LayerNormRNN and LayerNormRNNCell."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from normkernels._arguments import constructor
from normkernels.modules._cells import Cell
from normkernels.modules._layer_norm_recurrent import LayerNormalised, LayerNormRecurrent
from normkernels.ops._recurrent import check_nonlinearity
from normkernels.ops.layer_norm_rnn import layer_norm_rnn, layer_norm_rnn_cell

SHOWN: dict[str, Any] = {"norm_terms": "sum", "eps": 1e-5, "backend": None}


class LayerNormRNN(LayerNormRecurrent):
    """torch.nn.RNN with layer normalisation: the same arguments, inputs, outputs and parameter names, and the norms'.

    .. math::
        a_t = W_{hh} h_{t-1} + W_{ih} x_t, \\quad h_t = f\\Big(\\frac{g}{\\sigma_t} \\odot (a_t - \\mu_t) + b\\Big)

    with mean and standard deviation over the units of a_t, or with ``norm_terms="separate"``
    :math:`h_t = f(\\text{LN}(W_{ih} x_t) + \\text{LN}(W_{hh} h_{t-1}))`. A whole sequence is one call per layer and
    direction, forward and backward: see :func:`normkernels.functional.layer_norm_rnn`.

    Args:
        input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional: as in
            torch.nn.RNN. ``bias_ih + bias_hh`` is b, added after the norm.
        device, dtype: of the parameters.
        norm_terms: normalise the ``"sum"`` of both terms once, or each apart (``"separate"``).
        eps: added to the variances.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input ``(L, N, H_in)``, with ``batch_first`` ``(N, L, H_in)``, ``(L, H_in)``, or a PackedSequence; outputs as in
        torch.nn.RNN.

    Attributes: beside torch's, for layer k (and ``_reverse``) ``norm_weight_l{k}``, g (apart: ``norm_weight_ih_l{k}``
    and ``norm_weight_hh_l{k}``), ``(hidden_size,)``, at first 1. A state_dict of torch.nn.RNN loads.

    Raises:
        ValueError, RuntimeError: as torch.nn.RNN does, if a shape or dtype is wrong; ValueError if a name or number is.

    Example:
        >>> layer = nk.LayerNormRNN(5, 8, bidirectional=True)
        >>> output, h_n = layer(torch.randn(7, 2, 5))
        >>> output.shape
        torch.Size([7, 2, 16])

    Source: Ba et al. 2016, arXiv:1607.06450, equation 4.
    """

    GATES: int = 1
    STATES: int = 1
    SHOWN: dict[str, Any] = SHOWN
    FUNCTION: Any = staticmethod(layer_norm_rnn)
    FUNCTION_OPTIONS: tuple[str, ...] = ("nonlinearity",)

    @constructor
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Device = None,
        dtype: torch.dtype | None = None, *, norm_terms: str = "sum", eps: float = 1e-5, backend: str | None = None,
    ) -> None:  # fmt: skip
        check_nonlinearity(type(self).__name__, nonlinearity)
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(f"RNN_{nonlinearity.upper()}", *sizes, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity
        switches = {"norm_terms": norm_terms, "eps": eps, "backend": backend}
        self._set_up(self.suffixes(), switches, device, dtype)


class LayerNormRNNCell(LayerNormalised, Cell, nn.RNNCell):
    """One step of :class:`LayerNormRNN`: torch.nn.RNNCell's arguments, inputs and outputs, and the same switches.

    Args:
        input_size, hidden_size, bias, nonlinearity, device, dtype: as in torch.nn.RNNCell.
        norm_terms, eps, backend: as in :class:`LayerNormRNN`.

    Shape:
        input ``(N, H_in)`` or ``(H_in,)``, states ``(N, H)`` or ``(H,)``; outputs as in torch.nn.RNNCell.

    Attributes: as in :class:`LayerNormRNN`, without the suffix of a layer.

    Raises:
        ValueError, RuntimeError: as torch.nn.RNNCell does, if a shape or dtype is wrong; ValueError if a name or
            number is.

    Example:
        >>> cell = nk.LayerNormRNNCell(5, 8)
        >>> h = cell(torch.randn(2, 5))
        >>> h.shape
        torch.Size([2, 8])

    Source: as :class:`LayerNormRNN`.
    """

    GATES: int = 1
    SHOWN: dict[str, Any] = SHOWN

    @constructor
    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Device = None,
        dtype: torch.dtype | None = None, *, norm_terms: str = "sum", eps: float = 1e-5, backend: str | None = None,
    ) -> None:  # fmt: skip
        check_nonlinearity(type(self).__name__, nonlinearity)
        super().__init__(input_size, hidden_size, bias, nonlinearity, device=device, dtype=dtype)
        self._set_up([""], {"norm_terms": norm_terms, "eps": eps, "backend": backend}, device, dtype)

    def _step(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._call(layer_norm_rnn_cell, x, "", states, nonlinearity=self.nonlinearity),)
