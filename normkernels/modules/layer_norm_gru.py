"""LayerNormGRU and LayerNormGRUCell."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from normkernels._arguments import constructor
from normkernels.modules._cells import Cell
from normkernels.modules._layer_norm_recurrent import LayerNormalised, LayerNormRecurrent
from normkernels.ops.layer_norm_gru import layer_norm_gru, layer_norm_gru_cell

SHOWN: dict[str, Any] = {"norm_over": "rz", "norm_terms": "separate", "eps": 1e-5, "backend": None}


class LayerNormGRU(LayerNormRecurrent):
    """torch.nn.GRU with layer normalisation: the same arguments, inputs, outputs and parameter names, and the norms'.

    Each step computes, with p = LN(W_ih x_t), q = LN(W_hh h_{t-1}) and gates r, z, n in torch's order,

    .. math::
        r, z = \\sigma(p + q), \\quad n = \\tanh(p + r \\odot q), \\quad h_t = (1 - z) \\odot n + z \\odot h_{t-1}

    A whole sequence is one call per layer and direction, forward and backward: see
    :func:`normkernels.functional.layer_norm_gru`.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as in torch.nn.GRU. ``bias_ih``
            and ``bias_hh`` are added after the norms, whose biases they are.
        device, dtype: of the parameters.
        norm_over: one norm over r and z and one over n (``"rz"``, Ba et al.), one over all (``"joint"``), or one for
            each ``"gate"``.
        norm_terms: normalise both terms apart (``"separate"``, Ba et al.), or their ``"sum"`` once (Dreamer).
        eps: added to the variances.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input ``(L, N, H_in)``, with ``batch_first`` ``(N, L, H_in)``, ``(L, H_in)``, or a PackedSequence; outputs as in
        torch.nn.GRU.

    Attributes: beside torch's, for layer k (and ``_reverse``) ``norm_weight_ih_l{k}`` and ``norm_weight_hh_l{k}``
    (``norm_weight_l{k}`` of the sum), ``(3 * hidden_size,)``, at first 1. A state_dict of torch.nn.GRU loads.

    Raises:
        ValueError, RuntimeError: as torch.nn.GRU does, if a shape or dtype is wrong; ValueError if a name or number is.

    Example:
        >>> layer = nk.LayerNormGRU(5, 8, bidirectional=True)
        >>> output, h_n = layer(torch.randn(7, 2, 5))
        >>> output.shape
        torch.Size([7, 2, 16])

    Source: Ba et al. 2016, arXiv:1607.06450, equations 23 to 26.
    """

    GATES: int = 3
    STATES: int = 1
    SHOWN: dict[str, Any] = SHOWN
    FUNCTION: Any = staticmethod(layer_norm_gru)

    @constructor
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Device = None, dtype: torch.dtype | None = None, *,
        norm_over: str = "rz", norm_terms: str = "separate", eps: float = 1e-5, backend: str | None = None,
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__("GRU", *sizes, device=device, dtype=dtype)
        switches = {"norm_over": norm_over, "norm_terms": norm_terms, "eps": eps, "backend": backend}
        self._set_up(self.suffixes(), switches, device, dtype)


class LayerNormGRUCell(LayerNormalised, Cell, nn.GRUCell):
    """One step of :class:`LayerNormGRU`: torch.nn.GRUCell's arguments, inputs and outputs, and the same switches.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.GRUCell.
        norm_over, norm_terms, eps, backend: as in :class:`LayerNormGRU`.

    Shape:
        input ``(N, H_in)`` or ``(H_in,)``, states ``(N, H)`` or ``(H,)``; outputs as in torch.nn.GRUCell.

    Attributes: as in :class:`LayerNormGRU`, without the suffix of a layer.

    Raises:
        ValueError, RuntimeError: as torch.nn.GRUCell does, if a shape or dtype is wrong; ValueError if a name or
            number is.

    Example:
        >>> cell = nk.LayerNormGRUCell(5, 8)
        >>> h = cell(torch.randn(2, 5))
        >>> h.shape
        torch.Size([2, 8])

    Source: as :class:`LayerNormGRU`.
    """

    GATES: int = 3
    SHOWN: dict[str, Any] = SHOWN

    @constructor
    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, norm_over: str = "rz", norm_terms: str = "separate", eps: float = 1e-5,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)
        switches = {"norm_over": norm_over, "norm_terms": norm_terms, "eps": eps, "backend": backend}
        self._set_up([""], switches, device, dtype)

    def _step(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._call(layer_norm_gru_cell, x, "", states),)
