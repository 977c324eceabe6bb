"""LayerNormGRU and LayerNormGRUCell."""

from typing import Any

from torch import Tensor, nn

from normkernels.modules._layer_norm_recurrent import LayerNormalised, LayerNormRecurrent
from normkernels.modules._recurrent import Cell
from normkernels.ops.layer_norm_gru import layer_norm_gru, layer_norm_gru_cell

SHOWN = {"norm_over": "rz", "norm_terms": "separate", "eps": 1e-5, "backend": None}


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
        norm_over: one norm over r and z and one over n (``"rz"``, Ba et al.), one over all (``"joint"``), or one for
            each ``"gate"``.
        norm_terms: normalise both terms apart (``"separate"``, Ba et al.), or their ``"sum"`` once (Dreamer).
        eps: added to the variances.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Attributes: beside torch's, for layer k (and ``_reverse``) ``norm_weight_ih_l{k}`` and ``norm_weight_hh_l{k}``
    (``norm_weight_l{k}`` of the sum), ``(3 * hidden_size,)``, at first 1. A state_dict of torch.nn.GRU loads.

    Shape: input ``(L, N, H_in)``, with ``batch_first`` ``(N, L, H_in)``, ``(L, H_in)``, or a PackedSequence.
    Raises ValueError or RuntimeError, as torch does, if a shape or dtype is wrong.
    Source: Ba et al. 2016, arXiv:1607.06450, equations 23 to 26.
    """

    GATES, SHOWN, STATES, FUNCTION = 3, SHOWN, 1, staticmethod(layer_norm_gru)

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device=None, dtype=None, *, norm_over: str = "rz",
        norm_terms: str = "separate", eps: float = 1e-5, backend: str | None = None,
    ) -> None:  # fmt: skip
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__("GRU", *sizes, **made)
        switches = {"norm_over": norm_over, "norm_terms": norm_terms, "eps": eps, "backend": backend}
        self._set_up(self.suffixes(), switches, **made)


class LayerNormGRUCell(LayerNormalised, Cell, nn.GRUCell):
    """One step of :class:`LayerNormGRU`: torch.nn.GRUCell's arguments, inputs and outputs, and the same switches."""

    GATES, SHOWN = 3, SHOWN

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None, *, norm_over: str = "rz",
        norm_terms: str = "separate", eps: float = 1e-5, backend: str | None = None,
    ) -> None:  # fmt: skip
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(input_size, hidden_size, bias, **made)
        switches = {"norm_over": norm_over, "norm_terms": norm_terms, "eps": eps, "backend": backend}
        self._set_up([""], switches, **made)

    def _step(self, x: Tensor, states) -> tuple[Tensor, ...]:
        return (self._call(layer_norm_gru_cell, x, "", states),)
