"""The LSTM with batch normalisation of each step (Cooijmans et al. 2017, arXiv:1603.09025)."""

from typing import Any, NamedTuple

from torch import Tensor

from normkernels._backends import requested
from normkernels._backends.reference.batch_norm_lstm import batch_norm_lstm_ref
from normkernels._backends.reference.batch_norm_rnn import Measured
from normkernels._checks import check_eps
from normkernels._library import Kernel, kernel
from normkernels.ops import _recurrent as recurrent
from normkernels.ops import _sequence as steps
from normkernels.ops._buffers import flat
from normkernels.ops._step_statistics import check_statistics, first_statistics, rows_of_steps
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function, gradients, wants_grad

# as layer_norm_lstm's, but that a column is normalised over the rows of its step; mean, var: (T, 4 H), cell_mean,
# cell_var: (T, H), population statistics in time's order: measured in training, else read
batch_norm_lstm_fwd: Kernel = kernel(
    "batch_norm_lstm_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? cell_weight, "
    "Tensor? cell_bias, Tensor? batch_sizes, Tensor(a!) h, Tensor(b!) c, Tensor(c!) y, Tensor(d!) a, Tensor(e!) mean, "
    "Tensor(f!) var, Tensor(g!) gates, Tensor(h!) cells, Tensor(i!)? raw_cells, Tensor(j!)? cell_mean, "
    "Tensor(k!)? cell_var, bool training, bool separate, float eps, bool reverse)"
)
batch_norm_lstm_bwd: Kernel = kernel(
    "batch_norm_lstm_bwd(Tensor dy, Tensor gates, Tensor cells, Tensor? raw_cells, Tensor? cell_mean, "
    "Tensor? cell_var, Tensor previous_cells, Tensor a, Tensor mean, Tensor var, Tensor weight_hh, Tensor? weight, "
    "Tensor? cell_weight, Tensor? cell_bias, Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dc, Tensor(c!) dinput, "
    "Tensor(d!)? da, Tensor(e!)? dweight, Tensor(f!)? dbias, Tensor(g!)? dcell_weight, Tensor(h!)? dcell_bias, "
    "bool training, float eps, bool reverse)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    training: bool
    separate: bool
    norm_cell: str | None
    eps: float
    reverse: bool
    kept: bool
    backend: str | None


class BatchNormLSTMRecipe(Recipe):
    """(input, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0, batch_sizes, 4 statistics) -> (y, h_n, c_n).

    And the statistics as they were used.
    """

    @staticmethod
    def run(*args: Any) -> Filled:
        *inputs, h_0, c_0, batch_sizes = args[:9]
        training, separate, norm_cell, eps, reverse, kept, backend = args[-1]
        sequence = steps.sizes_of(inputs[0], inputs[1], batch_sizes)
        h, c, y, a, gates, cells, raw_cells = steps.cells_of(inputs[0], h_0, c_0, sequence, norm_cell, kept)
        mean, var, cell_mean, cell_var = statistics = [None if t is None else t.clone() for t in args[9:-1]]
        batch_norm_lstm_fwd(
            *steps.operands(*inputs), batch_sizes, h, c, y, a, mean, var, gates, cells, raw_cells, cell_mean, cell_var,
            training, separate, eps, reverse, backend,
        )  # fmt: skip
        outputs = steps.handed_out(y, sequence, kept), h, c.to(inputs[0].dtype)
        saved = [y, a, gates, cells, raw_cells] if kept else []
        return (*outputs, *(t for t in statistics if t is not None)), (*args[:9], *statistics, *saved)

    @staticmethod
    def composed(*args: Any) -> tuple[Tensor, ...]:
        *inputs, h_0, c_0, batch_sizes = args[:9]
        statistics, s, measured = args[9:-1], args[-1], [Measured(), Measured()]
        found = steps.composed(
            batch_norm_lstm_ref, inputs, (h_0, c_0), *([None] * 4 if s.training else statistics), batch_sizes,
            separate=s.separate, norm_cell=s.norm_cell, eps=s.eps, reverse=s.reverse, measured=measured,
        )  # fmt: skip
        if s.training:
            statistics = [t for m in measured[: 1 if s.norm_cell is None else 2] for t in m.of_steps()]
        return *found, *(t for t in statistics if t is not None)

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, BatchNormLSTMRecipe, args, 3)

    @staticmethod
    def backward(
        ctx: Any, dy: Tensor | None, dh_n: Tensor | None, dc_n: Tensor | None, *_of_statistics: Any
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once, for a checkpoint without reentrance hands them out once
        inputs, others, grads = saved[:8], (*saved[8:13], ctx.settings), (dy, dh_n, dc_n)
        if differentiated_again():
            return *gradients(BatchNormLSTMRecipe, inputs, grads, *others), *[None] * len(others)
        batch_sizes, mean, var, cell_mean, cell_var, y, a, gates, cells, raw_cells = saved[8:]
        training, separate, _, eps, reverse, _, backend = ctx.settings
        _, weight_hh, weight, _, cell_weight, cell_bias, *_ = inputs
        back = steps.way_back(ctx, inputs, batch_sizes, grads, separate, reverse)
        batch_norm_lstm_bwd(
            back.dy, gates, cells, raw_cells, cell_mean, cell_var, back.before(cells, 1), a, mean, var,
            weight_hh.contiguous(), flat(weight), flat(cell_weight), flat(cell_bias), batch_sizes, *back.dstates,
            back.dinput, back.da, *back.dparameters, training, eps, reverse, backend,
        )  # fmt: skip
        return back.gradients(back.before(y, 0))


@function
def batch_norm_lstm(
    input: Tensor, weight_hh: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    cell_running_mean: Tensor | None = None, cell_running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, cell_weight: Tensor | None = None, cell_bias: Tensor | None = None,
    h_0: Tensor | None = None, c_0: Tensor | None = None, batch_sizes: Tensor | None = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5, *, norm_terms: str = "separate", norm_cell: str | None = "output",
    reverse: bool = False, backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    r"""A batch-normalised LSTM over a whole sequence, given what the input contributes to each step.

    .. math::
        i, f, g, o = \sigma, \sigma, \tanh, \sigma\,(\text{BN}_t(W_{hh} h_{t-1}) \odot w + b + x_t), \quad
        c_t = f \odot c_{t-1} + i \odot g, \quad h_t = o \odot \tanh(\text{BN}_t(c_t) \odot w_c + b_c)

    with the mean and population variance of each unit over the batch at step t; with ``norm_terms="sum"`` the gates are
    those of :math:`\text{BN}_t(W_{hh} h_{t-1} + x_t) \odot w + b`.

    Args:
        input: x, the projected input (``F.linear(x, weight_ih)``; normalise it before to have both terms normalised
            apart): ``(T, B, 4 H)``, gates i, f, g, o as in torch; or packed, ``(rows, 4 H)`` with ``batch_sizes``.
            float64, float32, bfloat16 or float16.
        weight_hh: ``(4 H, H)``, in input's dtype.
        running_mean, running_var: ``(slots, 4 H)``, in input's dtype or float32: of step t, in the order of the walk;
            steps past the last slot share it. With ``training`` they are updated in place, the variance with the
            unbiased one; or None.
        cell_running_mean, cell_running_var: ``(slots, H)``, the same of the cells.
        weight, bias: w and b, ``(4 H,)``, in input's dtype or float32; None means 1 and 0.
        cell_weight, cell_bias: w_c and b_c, ``(H,)``, the same.
        h_0, c_0: the first states, ``(B, H)``, in input's dtype; None means 0.
        batch_sizes: rows of each step, as in ``torch.nn.utils.rnn.PackedSequence``: int64, on the CPU.
        training: normalise with the statistics of this batch.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.
        norm_terms: normalise the recurrent term alone (``"separate"``), or the ``"sum"`` of both.
        norm_cell: hand c on as it is and normalise it inside tanh (``"output"``), hand the normalised c on
            (``"carried"``), or None: no norm there.
        reverse: walk from the last step to the first.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, every h, like input with H columns; h_n and c_n, ``(B, H)``, the last states of each row.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong, there are no steps, or a step of one row in
            training. The running statistics are then as they were.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0, through time in one call; twice
    differentiable (through the reference). Kept for it: y, a and the gates (two tensors of input's size), the cells
    (twice with ``"carried"``), the statistics of each step.
    Deterministic: yes.

    Example:
        >>> x, weight_hh = torch.randn(7, 4, 32), torch.randn(32, 8)
        >>> y, h_n, c_n = nk.functional.batch_norm_lstm(x, weight_hh, None, None, norm_cell=None, training=True)
        >>> y.shape, c_n.shape
        (torch.Size([7, 4, 8]), torch.Size([4, 8]))

    Source: Cooijmans et al. 2017, arXiv:1603.09025, section 3.
    """
    name = "batch_norm_lstm"
    sequence = recurrent.check_sequence(name, input, weight_hh, 4, batch_sizes, h_0=h_0, c_0=c_0)
    check_eps(name, eps)
    hidden, normed = sequence.hidden, norm_cell is not None
    recurrent.check_parameters(name, input, 4 * hidden, weight=weight, bias=bias)
    recurrent.check_cell_parameters(name, input, hidden, norm_cell, cell_weight, cell_bias)
    given = {"running_mean": running_mean, "running_var": running_var}
    running = check_statistics(name, input, 4 * hidden, not training, **given)
    given = {"cell_running_mean": cell_running_mean, "cell_running_var": cell_running_var}
    of_cell = check_statistics(name, input, hidden, normed and not training, **given)
    separate, sizes = (
        recurrent.check_terms(name, norm_terms),
        rows_of_steps(sequence, batch_sizes, input.device),
    )
    first = (training, reverse)
    statistics = first_statistics(name, input, sequence, sizes, 4 * hidden, running, *first)
    if normed:
        statistics += first_statistics(name, input, sequence, sizes, hidden, of_cell, *first)
    kept = wants_grad(input, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0)
    settings = Settings(training, separate, norm_cell, eps, reverse, kept, requested(backend, name, input))
    y, h, c, *found = call(BatchNormLSTMRecipe, 
        input, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0, batch_sizes,
        *statistics, *[None] * (4 - len(statistics)), settings,
    )  # fmt: skip
    if training and sequence.batch:
        pairs = [(running, found[:2]), (of_cell, found[2:])][: len(found) // 2]
        for old, (mean, var) in pairs:
            if old is not None:
                old.update(mean, var, sizes, momentum, reverse)
    return y, h, c
