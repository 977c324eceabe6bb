"""BatchNormLSTM."""

import torch
from torch.types import Device

from normkernels.modules._batch_norm_recurrent import SHOWN, BatchNormRecurrent
from normkernels.ops.batch_norm_lstm import batch_norm_lstm


class BatchNormLSTM(BatchNormRecurrent):
    """torch.nn.LSTM with batch normalisation at each time step: the same arguments, inputs, outputs and names.

    Each step computes, with gates i, f, g, o in torch's order and statistics over the batch at step t,

    .. math::
        i, f, g, o = \\sigma, \\sigma, \\tanh, \\sigma\\,(\\text{BN}_t(W_{ih} x_t) + \\text{BN}_t(W_{hh} h_{t-1}) + b),
        \\quad c_t = f \\odot c_{t-1} + i \\odot g, \\quad h_t = o \\odot \\tanh(\\text{BN}_t(c_t))

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as in torch.nn.LSTM. ``bias_ih +
            bias_hh`` is b, added after the norms.
        device, dtype: of the parameters and buffers.
        norm_terms: normalise both terms apart (``"separate"``), or their ``"sum"`` once.
        norm_cell: hand the cell on as it is (``"output"``) or normalised (``"carried"``), or None: no norm.
        eps, momentum, max_steps, track_running_stats, gain, per_step_affine, backend: as in :class:`BatchNormRNN`,
            which says too how to get what was tried first.

    Shape:
        input ``(L, N, H_in)``, with ``batch_first`` ``(N, L, H_in)``, or a PackedSequence, in training with N > 1 at
        every step; outputs as in torch.nn.LSTM.

    Attributes: beside torch's, for layer k (and ``_reverse``) ``norm_weight_ih_l{k}`` and ``norm_weight_hh_l{k}``
    (``norm_weight_l{k}`` of the sum), ``(4 * hidden_size,)``, ``norm_weight_cell_l{k}`` and ``norm_bias_cell_l{k}``,
    ``(hidden_size,)``; for each norm the buffers ``running_mean_{ih,hh,cell}_l{k}`` and ``running_var_...``,
    ``(max_steps, ...)``, and ``num_batches_tracked_l{k}``, ``(max_steps,)``. With ``per_step_affine`` these parameters
    too are ``(max_steps, ...)``, and ``norm_bias_l{k}``, ``(max_steps, 4 * hidden_size)``, at first 0, is added to b. A
    state_dict of torch.nn.LSTM loads.

    Raises:
        ValueError, RuntimeError: as torch.nn.LSTM does, if a shape or dtype is wrong; ValueError if a name or
            number is.

    Example:
        >>> layer = nk.BatchNormLSTM(5, 8, bidirectional=True)
        >>> output, (h_n, c_n) = layer(torch.randn(7, 2, 5))
        >>> output.shape
        torch.Size([7, 2, 16])

    Source: Cooijmans et al. 2017, arXiv:1603.09025, section 3.
    """

    GATES, STATES, SHOWN = 4, 2, SHOWN | {"norm_cell": "output"}
    FUNCTION, OPTIONS = staticmethod(batch_norm_lstm), ("momentum", "eps", "norm_terms", "norm_cell", "backend")

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Device = None, dtype: torch.dtype | None = None, *,
        norm_terms: str = "separate", norm_cell: str | None = "output", eps: float = 1e-5, momentum: float = 0.1,
        max_steps: int = 128, track_running_stats: bool = True, gain: float = 0.1, per_step_affine: bool = False,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__("LSTM", *sizes, device=device, dtype=dtype)
        switches = {"norm_terms": norm_terms, "norm_cell": norm_cell, "eps": eps, "momentum": momentum}
        switches |= {"max_steps": max_steps, "track_running_stats": track_running_stats, "gain": gain}
        switches |= {"per_step_affine": per_step_affine, "backend": backend}
        self._set_up(switches, device, dtype)
