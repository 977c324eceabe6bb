"""The RNN with batch normalisation of each step (Laurent et al. 2016, arXiv:1510.01378; Cooijmans et al. 2017)."""

from typing import Any, NamedTuple

from torch import Tensor

from normkernels._backends import requested
from normkernels._backends.reference.batch_norm_rnn import Measured, batch_norm_rnn_ref
from normkernels._checks import check_eps
from normkernels._library import Kernel, kernel
from normkernels.ops import _recurrent as recurrent
from normkernels.ops import _sequence as steps
from normkernels.ops._buffers import flat
from normkernels.ops._step_statistics import check_statistics, first_statistics, rows_of_steps
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function, gradients, wants_grad

# as layer_norm_rnn's, but that a column of a is normalised over the rows of its step; mean, var: (T, H), population
# statistics in time's order: measured in training, else read
batch_norm_rnn_fwd: Kernel = kernel(
    "batch_norm_rnn_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? batch_sizes, "
    "Tensor(a!) h, Tensor(b!) y, Tensor(c!) a, Tensor(d!) mean, Tensor(e!) var, bool training, bool separate, "
    "str nonlinearity, float eps, bool reverse)"
)
batch_norm_rnn_bwd: Kernel = kernel(
    "batch_norm_rnn_bwd(Tensor dy, Tensor y, Tensor a, Tensor mean, Tensor var, Tensor weight_hh, Tensor? weight, "
    "Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dinput, Tensor(c!)? da, Tensor(d!)? dweight, Tensor(e!)? dbias, "
    "bool training, str nonlinearity, float eps, bool reverse)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    training: bool
    separate: bool
    nonlinearity: str
    eps: float
    reverse: bool
    kept: bool
    backend: str | None


class BatchNormRNNRecipe(Recipe):
    """(input, weight_hh, weight, bias, h_0, batch_sizes, mean, var) -> (y, h_n, mean, var), the statistics as used."""

    @staticmethod
    def run(
        input: Tensor, weight_hh: Tensor, weight: Tensor | None, bias: Tensor | None, h_0: Tensor | None,
        batch_sizes: Tensor | None, mean: Tensor, var: Tensor, settings: Settings,
    ) -> Filled:  # fmt: skip
        training, separate, nonlinearity, eps, reverse, kept, backend = settings
        sequence = steps.sizes_of(input, weight_hh, batch_sizes)
        y, h = sequence.like(input, True, sequence.hidden), steps.state(h_0, input, sequence)
        a = sequence.like(input, kept, sequence.hidden)
        mean, var = mean.clone(), var.clone()
        batch_norm_rnn_fwd(
            *steps.operands(input, weight_hh, weight, bias), batch_sizes, h, y, a, mean, var, training, separate,
            nonlinearity, eps, reverse, backend,
        )  # fmt: skip
        inputs, saved = (input, weight_hh, weight, bias, h_0, batch_sizes), [y, a] if kept else []
        return (steps.handed_out(y, sequence, kept), h, mean, var), (*inputs, mean, var, *saved)

    @staticmethod
    def composed(
        input: Tensor, weight_hh: Tensor, weight: Tensor | None, bias: Tensor | None, h_0: Tensor | None,
        batch_sizes: Tensor | None, mean: Tensor, var: Tensor, settings: Settings,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        measured, given = Measured(), (None, None) if settings.training else (mean, var)
        found = steps.composed(
            batch_norm_rnn_ref, (input, weight_hh, weight, bias), (h_0,), *given, batch_sizes,
            separate=settings.separate, nonlinearity=settings.nonlinearity, eps=settings.eps,
            reverse=settings.reverse, measured=measured,
        )  # fmt: skip
        return *found, *(measured.of_steps() if settings.training else (mean, var))

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, BatchNormRNNRecipe, args, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dh_n: Tensor | None, *_of_statistics: Any) -> tuple[Tensor | None, ...]:
        *inputs, batch_sizes, mean, var, y, a = ctx.saved_tensors
        if differentiated_again():
            others = batch_sizes, mean, var, ctx.settings
            return *gradients(BatchNormRNNRecipe, inputs, (dy, dh_n), *others), *[None] * len(others)
        training, separate, nonlinearity, eps, reverse, _, backend = ctx.settings
        _, weight_hh, weight, *_ = inputs
        back = steps.way_back(ctx, inputs, batch_sizes, (dy, dh_n), separate, reverse)
        batch_norm_rnn_bwd(
            back.dy, y, a, mean, var, weight_hh.contiguous(), flat(weight), batch_sizes, *back.dstates, back.dinput,
            back.da, *back.dparameters, training, nonlinearity, eps, reverse, backend,
        )  # fmt: skip
        return back.gradients(back.before(y, 0))


@function
def batch_norm_rnn(
    input: Tensor, weight_hh: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, h_0: Tensor | None = None,
    batch_sizes: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *,
    nonlinearity: str = "tanh", norm_terms: str = "separate", reverse: bool = False, backend: str | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""A batch-normalised RNN over a whole sequence, given what the input contributes to each step.

    .. math::
        h_t = f(\text{BN}_t(W_{hh} h_{t-1}) \odot w + b + x_t), \quad
        \text{BN}_t(a) = \frac{a - \mu_t}{\sqrt{\sigma^2_t + \epsilon}}

    with the mean and population variance of each unit over the batch at step t; with ``norm_terms="sum"``
    :math:`h_t = f(\text{BN}_t(W_{hh} h_{t-1} + x_t) \odot w + b)`.

    Args:
        input: x, the projected input (``F.linear(x, weight_ih)``; normalise it before to have both terms normalised
            apart): ``(T, B, H)``; or packed, ``(rows, H)`` with ``batch_sizes``. float64, float32, bfloat16 or float16.
        weight_hh: ``(H, H)``, in input's dtype.
        running_mean, running_var: ``(slots, H)``, in input's dtype or float32: of step t, in the order of the walk;
            steps past the last slot share it, so that one slot makes statistics of all steps together. With
            ``training`` they are updated in place, the variance with the unbiased one; or None.
        weight, bias: w and b, ``(H,)``, in input's dtype or float32; None means 1 and 0.
        h_0: the first state, ``(B, H)``, in input's dtype; None means 0.
        batch_sizes: rows of each step, as in ``torch.nn.utils.rnn.PackedSequence``: int64, on the CPU.
        training: normalise with the statistics of this batch.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.
        nonlinearity: f, ``"tanh"`` or ``"relu"``.
        norm_terms: normalise the recurrent term alone (``"separate"``), or the ``"sum"`` of both.
        reverse: walk from the last step to the first.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, every state, like input with H columns, and h_n, ``(B, H)``, the last one of each row.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong, there are no steps, or a step of one row in
            training. The running statistics are then as they were.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, weight_hh, weight, bias, h_0, through time in one call; twice differentiable (through the
    reference). Kept for it: y, a (one tensor of input's size) and the statistics of each step.
    Deterministic: yes.

    Example:
        >>> x, weight_hh = torch.randn(7, 4, 8), torch.randn(8, 8)
        >>> mean, var = torch.zeros(7, 8), torch.ones(7, 8)
        >>> y, h_n = nk.functional.batch_norm_rnn(x, weight_hh, mean, var, training=True)
        >>> y.shape, torch.equal(y[-1], h_n)
        (torch.Size([7, 4, 8]), True)

    Source: Cooijmans et al. 2017, arXiv:1603.09025, section 3; ``norm_terms="sum"``: Laurent et al. 2016,
    arXiv:1510.01378.
    """
    name = "batch_norm_rnn"
    sequence = recurrent.check_sequence(name, input, weight_hh, 1, batch_sizes, h_0=h_0)
    check_eps(name, eps)
    recurrent.check_parameters(name, input, sequence.hidden, weight=weight, bias=bias)
    given = {"running_mean": running_mean, "running_var": running_var}
    running = check_statistics(name, input, sequence.hidden, not training, **given)
    separate = recurrent.check_terms(name, norm_terms)
    recurrent.check_nonlinearity(name, nonlinearity)
    sizes = rows_of_steps(sequence, batch_sizes, input.device)
    mean, var = first_statistics(name, input, sequence, sizes, sequence.hidden, running, training, reverse)
    kept = wants_grad(input, weight_hh, weight, bias, h_0)
    settings = Settings(training, separate, nonlinearity, eps, reverse, kept, requested(backend, name, input))
    y, h, mean, var = call(BatchNormRNNRecipe, input, weight_hh, weight, bias, h_0, batch_sizes, mean, var, settings)
    if training and running is not None and sequence.batch:
        running.update(mean, var, sizes, momentum, reverse)
    return y, h
