"""BatchNormRNN."""

from typing import Any

import torch
from torch.types import Device

from normkernels._arguments import constructor
from normkernels.modules._batch_norm_recurrent import SHOWN, BatchNormRecurrent
from normkernels.ops._recurrent import check_nonlinearity
from normkernels.ops.batch_norm_rnn import batch_norm_rnn


class BatchNormRNN(BatchNormRecurrent):
    """torch.nn.RNN with batch normalisation at each time step: the same arguments, inputs, outputs and names.

    .. math::
        h_t = f(\\text{BN}_t(W_{ih} x_t) + \\text{BN}_t(W_{hh} h_{t-1}) + b)

    with statistics over the batch at step t, and a small gain at first: larger ones saturate f, and gradients vanish.

    ``norm_terms="sum"`` with ``max_steps=1`` and ``gain=1.0`` is what was tried first,
    :math:`h_t = f(\\text{BN}(W_{ih} x_t + W_{hh} h_{t-1}))` with one set of running statistics for all steps: in
    training each step is normalised by its own batch, in ``eval()`` all by the same statistics, which fit none of them.
    It is the statistics that fail there, not the sum: with those of each step ``eval()`` is as good at that gain.

    Args:
        input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional: as in
            torch.nn.RNN. ``bias_ih + bias_hh`` is b, added after the norms.
        device, dtype: of the parameters and buffers.
        norm_terms: normalise both terms apart (``"separate"``), or their ``"sum"`` once.
        eps: added to the variances.
        momentum: weight of a batch in the running statistics.
        max_steps: how many steps have running statistics of their own; later ones use the last of these, and steps
            later than any in training the last one seen there. A reverse direction counts from the last step.
        track_running_stats: without, ``eval()`` normalises with the statistics of the batch too.
        gain: of the norms at first.
        per_step_affine: each of the first ``max_steps`` steps has a gain and a bias of its own, later ones those of the
            last; in ``eval()`` steps later than any in training have those of the last one that was. Each such step is
            a call of its own, slower than one call of them all.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input ``(L, N, H_in)``, with ``batch_first`` ``(N, L, H_in)``, or a PackedSequence, in training with N > 1 at
        every step; outputs as in torch.nn.RNN.

    Attributes: beside torch's, for layer k (and ``_reverse``) ``norm_weight_ih_l{k}`` and ``norm_weight_hh_l{k}``
    (``norm_weight_l{k}`` of the sum), ``(hidden_size,)``; buffers ``running_mean_ih_l{k}``, ``running_var_ih_l{k}``,
    ``running_mean_hh_l{k}``, ``running_var_hh_l{k}``, ``(max_steps, hidden_size)``, at first 0 and 1, and
    ``num_batches_tracked_l{k}``, ``(max_steps,)``. With ``per_step_affine`` every ``norm_weight`` is ``(max_steps,
    hidden_size)``, and ``norm_bias_l{k}`` of that shape, at first 0, is added to b. A state_dict of torch.nn.RNN loads.

    Raises:
        ValueError, RuntimeError: as torch.nn.RNN does, if a shape or dtype is wrong; ValueError if a name or number is.

    Example:
        >>> layer = nk.BatchNormRNN(5, 8, bidirectional=True)
        >>> output, h_n = layer(torch.randn(7, 2, 5))
        >>> output.shape
        torch.Size([7, 2, 16])

    Source: Cooijmans et al. 2017, arXiv:1603.09025, section 3; the sum: Laurent et al. 2016, arXiv:1510.01378.
    """

    GATES: int = 1
    STATES: int = 1
    SHOWN: dict[str, Any] = SHOWN
    FUNCTION: Any = staticmethod(batch_norm_rnn)
    OPTIONS: tuple[str, ...] = ("nonlinearity", "momentum", "eps", "norm_terms", "backend")

    @constructor
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Device = None,
        dtype: torch.dtype | None = None, *, norm_terms: str = "separate", eps: float = 1e-5, momentum: float = 0.1,
        max_steps: int = 128, track_running_stats: bool = True, gain: float = 0.1, per_step_affine: bool = False,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        check_nonlinearity(type(self).__name__, nonlinearity)
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        super().__init__(f"RNN_{nonlinearity.upper()}", *sizes, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity
        switches = {"norm_terms": norm_terms, "eps": eps, "momentum": momentum, "max_steps": max_steps}
        switches |= {"track_running_stats": track_running_stats, "gain": gain, "backend": backend}
        switches["per_step_affine"] = per_step_affine
        self._set_up(switches, device, dtype)
