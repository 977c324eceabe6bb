"""LayerNormLSTM and LayerNormLSTMCell."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from normkernels._arguments import constructor
from normkernels.modules._cells import Cell
from normkernels.modules._layer_norm_recurrent import LayerNormalised, LayerNormRecurrent
from normkernels.ops.layer_norm_lstm import layer_norm_lstm, layer_norm_lstm_cell

SHOWN: dict[str, Any] = {
    "norm_over": "joint",
    "norm_terms": "separate",
    "norm_cell": "output",
    "eps": 1e-5,
    "backend": None,
}


class LayerNormLSTM(LayerNormRecurrent):
    """torch.nn.LSTM with layer normalisation: the same arguments, inputs, outputs and parameter names, and the norms'.

    Each step computes, with gates i, f, g, o in torch's order,

    .. math::
        i, f, g, o = \\sigma, \\sigma, \\tanh, \\sigma\\,(\\text{LN}(W_{ih} x_t) + \\text{LN}(W_{hh} h_{t-1})), \\quad
        c_t = f \\odot c_{t-1} + i \\odot g, \\quad h_t = o \\odot \\tanh(\\text{LN}(c_t))

    A whole sequence is one call per layer and direction, forward and backward: see
    :func:`normkernels.functional.layer_norm_lstm`.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size: as in torch.nn.LSTM.
            ``bias_ih`` and ``bias_hh`` are added after the norms, whose biases they are. With ``proj_size`` a layer
            runs in ordinary torch ops.
        device, dtype: of the parameters.
        norm_over: one norm over all gates (``"joint"``), or one for each ``"gate"``.
        norm_terms: normalise both terms apart (``"separate"``, Ba et al.), or their ``"sum"`` once.
        norm_cell: hand the cell on as it is (``"output"``, Ba et al.) or normalised (``"carried"``), or None: no norm.
        eps: added to the variances.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input ``(L, N, H_in)``, with ``batch_first`` ``(N, L, H_in)``, ``(L, H_in)``, or a PackedSequence; outputs as in
        torch.nn.LSTM.

    Attributes: beside torch's, for layer k (and ``_reverse``) ``norm_weight_ih_l{k}`` and ``norm_weight_hh_l{k}``
    (``norm_weight_l{k}`` of the sum), ``(4 * hidden_size,)``, at first 1; ``norm_weight_cell_l{k}`` and
    ``norm_bias_cell_l{k}``, ``(hidden_size,)``, at first 1 and 0. A state_dict of torch.nn.LSTM loads.

    Raises:
        ValueError, RuntimeError: as torch.nn.LSTM does, if a shape or dtype is wrong; ValueError if a name or
            number is.

    Example:
        >>> layer = nk.LayerNormLSTM(5, 8, bidirectional=True)
        >>> output, (h_n, c_n) = layer(torch.randn(7, 2, 5))
        >>> output.shape
        torch.Size([7, 2, 16])

    Source: Ba et al. 2016, arXiv:1607.06450, equations 20 to 22.
    """

    GATES: int = 4
    STATES: int = 2
    SHOWN: dict[str, Any] = SHOWN
    FUNCTION: Any = staticmethod(layer_norm_lstm)

    @constructor
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Device = None,
        dtype: torch.dtype | None = None, *, norm_over: str = "joint", norm_terms: str = "separate",
        norm_cell: str | None = "output", eps: float = 1e-5, backend: str | None = None,
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        super().__init__("LSTM", *sizes, device=device, dtype=dtype)
        switches = {"norm_over": norm_over, "norm_terms": norm_terms, "norm_cell": norm_cell, "eps": eps}
        self._set_up(self.suffixes(), switches | {"backend": backend}, device, dtype)


class LayerNormLSTMCell(LayerNormalised, Cell, nn.LSTMCell):
    """One step of :class:`LayerNormLSTM`: torch.nn.LSTMCell's arguments, inputs and outputs, and the same switches.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.LSTMCell.
        norm_over, norm_terms, norm_cell, eps, backend: as in :class:`LayerNormLSTM`.

    Shape:
        input ``(N, H_in)`` or ``(H_in,)``, states ``(N, H)`` or ``(H,)``; outputs as in torch.nn.LSTMCell.

    Attributes: as in :class:`LayerNormLSTM`, without the suffix of a layer.

    Raises:
        ValueError, RuntimeError: as torch.nn.LSTMCell does, if a shape or dtype is wrong; ValueError if a name or
            number is.

    Example:
        >>> cell = nk.LayerNormLSTMCell(5, 8)
        >>> h, c = cell(torch.randn(2, 5))
        >>> h.shape
        torch.Size([2, 8])

    Source: as :class:`LayerNormLSTM`.
    """

    GATES: int = 4
    SHOWN: dict[str, Any] = SHOWN

    @constructor
    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, norm_over: str = "joint", norm_terms: str = "separate",
        norm_cell: str | None = "output", eps: float = 1e-5, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)
        switches = {"norm_over": norm_over, "norm_terms": norm_terms, "norm_cell": norm_cell, "eps": eps}
        self._set_up([""], switches | {"backend": backend}, device, dtype)

    def _step(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._call(layer_norm_lstm_cell, x, "", states)
