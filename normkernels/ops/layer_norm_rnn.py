"""The RNN with layer normalisation (Ba et al. 2016, arXiv:1607.06450)."""

from typing import Any, NamedTuple

from torch import Tensor

from normkernels._backends import requested
from normkernels._backends.reference.layer_norm_rnn import layer_norm_rnn_ref
from normkernels._checks import check_eps
from normkernels._library import Kernel, kernel
from normkernels.ops import _recurrent as recurrent
from normkernels.ops import _sequence as steps
from normkernels.ops._buffers import flat
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function, gradients, wants_grad

# input, y, dy, dinput, da: contiguous (total, H), the rows of step 0, then of step 1, ...: batch_sizes[t] of them, or
# all B; a: what is normalised, mean, rstd: (rows, 1): rows of all steps, or of one; h: the running state (B, H)
layer_norm_rnn_fwd: Kernel = kernel(
    "layer_norm_rnn_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? batch_sizes, "
    "Tensor(a!) h, Tensor(b!) y, Tensor(c!) a, Tensor(d!) mean, Tensor(e!) rstd, bool separate, str nonlinearity, "
    "float eps, bool reverse)"
)
layer_norm_rnn_bwd: Kernel = kernel(
    "layer_norm_rnn_bwd(Tensor dy, Tensor y, Tensor a, Tensor mean, Tensor rstd, Tensor weight_hh, Tensor? weight, "
    "Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dinput, Tensor(c!)? da, Tensor(d!)? dweight, Tensor(e!)? dbias, "
    "str nonlinearity, bool reverse)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    separate: bool
    nonlinearity: str
    eps: float
    reverse: bool
    kept: bool
    backend: str | None


class LayerNormRNNRecipe(Recipe):
    """(input, weight_hh, weight, bias, h_0, batch_sizes) -> (y, h_n)."""

    @staticmethod
    def run(
        input: Tensor, weight_hh: Tensor, weight: Tensor | None, bias: Tensor | None, h_0: Tensor | None,
        batch_sizes: Tensor | None, settings: Settings,
    ) -> Filled:  # fmt: skip
        separate, nonlinearity, eps, reverse, kept, backend = settings
        sequence = steps.sizes_of(input, weight_hh, batch_sizes)
        y, h = sequence.like(input, True, sequence.hidden), steps.state(h_0, input, sequence)
        a = sequence.like(input, kept, sequence.hidden)
        mean, rstd = (sequence.like(input, kept, 1, wide=True) for _ in range(2))
        layer_norm_rnn_fwd(
            *steps.operands(input, weight_hh, weight, bias), batch_sizes, h, y, a, mean, rstd, separate, nonlinearity,
            eps, reverse, backend,
        )  # fmt: skip
        saved = [y, a, mean, rstd] if kept else []
        return (steps.handed_out(y, sequence, kept), h), (input, weight_hh, weight, bias, h_0, batch_sizes, *saved)

    @staticmethod
    def composed(
        input: Tensor, weight_hh: Tensor, weight: Tensor | None, bias: Tensor | None, h_0: Tensor | None,
        batch_sizes: Tensor | None, settings: Settings,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        return steps.composed(
            layer_norm_rnn_ref, (input, weight_hh, weight, bias), (h_0,), batch_sizes, separate=settings.separate,
            nonlinearity=settings.nonlinearity, eps=settings.eps, reverse=settings.reverse,
        )  # fmt: skip

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, LayerNormRNNRecipe, args, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, batch_sizes, y, a, mean, rstd = ctx.saved_tensors
        if differentiated_again():
            return *gradients(LayerNormRNNRecipe, inputs, grads, batch_sizes, ctx.settings), None, None
        separate, nonlinearity, _, reverse, _, backend = ctx.settings
        _, weight_hh, weight, *_ = inputs
        back = steps.way_back(ctx, inputs, batch_sizes, grads, separate, reverse)
        layer_norm_rnn_bwd(
            back.dy, y, a, mean, rstd, weight_hh.contiguous(), flat(weight), batch_sizes, *back.dstates, back.dinput,
            back.da, *back.dparameters, nonlinearity, reverse, backend,
        )  # fmt: skip
        return back.gradients(back.before(y, 0))


@function
def layer_norm_rnn(
    input: Tensor, weight_hh: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
    h_0: Tensor | None = None, batch_sizes: Tensor | None = None, nonlinearity: str = "tanh", eps: float = 1e-5, *,
    norm_terms: str = "sum", reverse: bool = False, backend: str | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""A layer-normalised RNN over a whole sequence, given what the input contributes to each step.

    .. math::
        a_t = W_{hh} h_{t-1} + x_t, \quad h_t = f\Big(\frac{g}{\sigma_t} \odot (a_t - \mu_t) + b\Big), \quad
        \mu_t = \tfrac1H \textstyle\sum_i a_{ti}, \quad
        \sigma_t^2 = \tfrac1H \textstyle\sum_i (a_{ti} - \mu_t)^2 + \epsilon

    and with ``norm_terms="separate"``
    :math:`h_t = f(g / \sigma_t \odot (W_{hh} h_{t-1} - \mu_t) + b + x_t)`, of the recurrent term alone.

    Args:
        input: x, the projected input (``F.linear(x, weight_ih)``): ``(T, B, H)``; or packed, ``(rows, H)`` with
            ``batch_sizes``. float64, float32, bfloat16 or float16.
        weight_hh: ``(H, H)``, in input's dtype.
        weight, bias: g and b, ``(H,)``, in input's dtype or float32; None means 1 and 0.
        h_0: the first state, ``(B, H)``, in input's dtype; None means 0.
        batch_sizes: rows of each step, as in ``torch.nn.utils.rnn.PackedSequence``: int64, on the CPU.
        nonlinearity: f, ``"tanh"`` or ``"relu"``.
        eps: added to the variance.
        norm_terms: ``"sum"`` of both terms is normalised, or the recurrent one alone (``"separate"``).
        reverse: walk from the last step to the first.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, every state, like input with H columns, and h_n, ``(B, H)``, the last one of each row.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong, or there are no steps.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, weight_hh, weight, bias, h_0, through time in one call; twice differentiable (through the
    reference). Kept for it: y, a (one tensor of input's size) and two statistics per row.
    Deterministic: yes.

    Example:
        >>> x, weight_hh = torch.randn(7, 2, 8), torch.randn(8, 8)
        >>> y, h_n = nk.functional.layer_norm_rnn(x, weight_hh)
        >>> y.shape, torch.equal(y[-1], h_n)
        (torch.Size([7, 2, 8]), True)

    Source: Ba et al. 2016, arXiv:1607.06450, equation 4.
    """
    name = "layer_norm_rnn"
    sequence = recurrent.check_sequence(name, input, weight_hh, 1, batch_sizes, h_0=h_0)
    check_eps(name, eps)
    recurrent.check_parameters(name, input, sequence.hidden, weight=weight, bias=bias)
    separate = recurrent.check_terms(name, norm_terms)
    kept = wants_grad(input, weight_hh, weight, bias, h_0)
    settings = Settings(
        separate, recurrent.check_nonlinearity(name, nonlinearity), eps, reverse, kept,
        requested(backend, name, input),
    )  # fmt: skip
    y, h = call(LayerNormRNNRecipe, input, weight_hh, weight, bias, h_0, batch_sizes, settings)
    return y, h


@function
def layer_norm_rnn_cell(
    input: Tensor, weight_hh: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
    h_0: Tensor | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """One step of :func:`layer_norm_rnn`.

    Args:
        input: x of this step, ``(B, H)``.
        weight_hh, weight, bias, h_0, options: as in :func:`layer_norm_rnn`.

    Returns:
        The new state, ``(B, H)``.

    Raises: as :func:`layer_norm_rnn`.

    Example:
        >>> nk.functional.layer_norm_rnn_cell(torch.randn(2, 8), torch.randn(8, 8)).shape
        torch.Size([2, 8])
    """
    return layer_norm_rnn(input.unsqueeze(0), weight_hh, weight, bias, h_0, **options)[1]
