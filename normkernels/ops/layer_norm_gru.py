"""The GRU with layer normalisation (Ba et al. 2016, arXiv:1607.06450)."""

from typing import Any, NamedTuple

from torch import Tensor

from normkernels._backends import requested
from normkernels._backends.reference.layer_norm_gru import layer_norm_gru_ref
from normkernels._checks import check_eps
from normkernels._library import Kernel, kernel
from normkernels.ops import _recurrent as recurrent
from normkernels.ops import _sequence as steps
from normkernels.ops._buffers import flat
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function, gradients, wants_grad

# as layer_norm_rnn's, with three gates r, z, n side by side in input, dinput, a, da and gates (their values, after
# sigmoid and tanh); mean, rstd: (rows, groups); previous: (total, H), h before each step
layer_norm_gru_fwd: Kernel = kernel(
    "layer_norm_gru_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? batch_sizes, "
    "Tensor(a!) h, Tensor(b!) y, Tensor(c!) a, Tensor(d!) mean, Tensor(e!) rstd, Tensor(f!) gates, int[] groups, "
    "bool separate, float eps, bool reverse)"
)
layer_norm_gru_bwd: Kernel = kernel(
    "layer_norm_gru_bwd(Tensor dy, Tensor gates, Tensor previous, Tensor a, Tensor mean, Tensor rstd, "
    "Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dinput, "
    "Tensor(c!)? da, Tensor(d!)? dweight, Tensor(e!)? dbias, int[] groups, bool reverse)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    groups: list[int]
    separate: bool
    eps: float
    reverse: bool
    kept: bool
    backend: str | None


class LayerNormGRURecipe(Recipe):
    """(input, weight_hh, weight, bias, h_0, batch_sizes) -> (y, h_n)."""

    @staticmethod
    def run(
        input: Tensor, weight_hh: Tensor, weight: Tensor | None, bias: Tensor | None, h_0: Tensor | None,
        batch_sizes: Tensor | None, settings: Settings,
    ) -> Filled:  # fmt: skip
        groups, separate, eps, reverse, kept, backend = settings
        sequence = steps.sizes_of(input, weight_hh, batch_sizes)
        y, h = sequence.like(input, True, sequence.hidden), steps.state(h_0, input, sequence)
        a, gates = (sequence.like(input, kept, 3 * sequence.hidden) for _ in range(2))
        mean, rstd = (sequence.like(input, kept, len(groups), wide=True) for _ in range(2))
        layer_norm_gru_fwd(
            *steps.operands(input, weight_hh, weight, bias), batch_sizes, h, y, a, mean, rstd, gates, groups, separate,
            eps, reverse, backend,
        )  # fmt: skip
        saved = [y, a, mean, rstd, gates] if kept else []
        return (steps.handed_out(y, sequence, kept), h), (input, weight_hh, weight, bias, h_0, batch_sizes, *saved)

    @staticmethod
    def composed(
        input: Tensor, weight_hh: Tensor, weight: Tensor | None, bias: Tensor | None, h_0: Tensor | None,
        batch_sizes: Tensor | None, settings: Settings,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        return steps.composed(
            layer_norm_gru_ref, (input, weight_hh, weight, bias), (h_0,), batch_sizes, groups=settings.groups,
            separate=settings.separate, eps=settings.eps, reverse=settings.reverse,
        )  # fmt: skip

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, LayerNormGRURecipe, args, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, batch_sizes, y, a, mean, rstd, gates = ctx.saved_tensors
        if differentiated_again():
            return *gradients(LayerNormGRURecipe, inputs, grads, batch_sizes, ctx.settings), None, None
        groups, separate, _, reverse, _, backend = ctx.settings
        _, weight_hh, weight, bias, _ = inputs
        back = steps.way_back(ctx, inputs, batch_sizes, grads, separate, reverse)
        previous = back.before(y, 0)
        layer_norm_gru_bwd(
            back.dy, gates, previous, a, mean, rstd, weight_hh.contiguous(), flat(weight), flat(bias), batch_sizes,
            *back.dstates, back.dinput, back.da, *back.dparameters, groups, reverse, backend,
        )  # fmt: skip
        return back.gradients(previous)


@function
def layer_norm_gru(
    input: Tensor, weight_hh: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
    h_0: Tensor | None = None, batch_sizes: Tensor | None = None, eps: float = 1e-5, *, norm_over: str = "rz",
    norm_terms: str = "separate", reverse: bool = False, backend: str | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""A layer-normalised GRU over a whole sequence, given what the input contributes to each step.

    .. math::
        q_t = \text{LN}(W_{hh} h_{t-1}) \odot g + b, \quad r, z = \sigma(x_t + q_t), \quad
        n = \tanh(x_t + r \odot q_t), \quad h_t = (1 - z) \odot n + z \odot h_{t-1}

    each with its third of :math:`x_t` and :math:`q_t`. With ``norm_terms="sum"``
    :math:`q_t = \text{LN}(W_{hh} h_{t-1} + x_t) \odot g + b`, and :math:`x_t` is added nowhere else: the form of
    Dreamer, whose update gate is the complement of z.

    Args:
        input: x, the projected input (``F.linear(x, weight_ih)``; normalise it before to have both terms normalised
            apart): ``(T, B, 3 H)``, gates r, z, n as in torch; or packed, ``(rows, 3 H)`` with ``batch_sizes``.
            float64, float32, bfloat16 or float16.
        weight_hh: ``(3 H, H)``, in input's dtype.
        weight, bias: g and b, ``(3 H,)``, in input's dtype or float32; None means 1 and 0.
        h_0: the first state, ``(B, H)``, in input's dtype; None means 0.
        batch_sizes: rows of each step, as in ``torch.nn.utils.rnn.PackedSequence``: int64, on the CPU.
        eps: added to the variance.
        norm_over: one norm over r and z and one over n (``"rz"``, Ba et al.), one over all (``"joint"``), or one for
            each gate (``"gate"``).
        norm_terms: normalise the recurrent term alone (``"separate"``), or the ``"sum"`` of both.
        reverse: walk from the last step to the first.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, every state, like input with H columns, and h_n, ``(B, H)``, the last one of each row.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong, or there are no steps.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, weight_hh, weight, bias, h_0, through time in one call; twice differentiable (through the
    reference). Kept for it: y, a and the gates (two tensors of input's size), two statistics per row and group.
    Deterministic: yes.

    Example:
        >>> x, weight_hh = torch.randn(7, 2, 24), torch.randn(24, 8)
        >>> y, h_n = nk.functional.layer_norm_gru(x, weight_hh)
        >>> y.shape, torch.equal(y[-1], h_n)
        (torch.Size([7, 2, 8]), True)

    Source: Ba et al. 2016, arXiv:1607.06450, equations 23 to 26; the state's update is torch's.
    """
    name = "layer_norm_gru"
    sequence = recurrent.check_sequence(name, input, weight_hh, 3, batch_sizes, h_0=h_0)
    check_eps(name, eps)
    recurrent.check_parameters(name, input, 3 * sequence.hidden, weight=weight, bias=bias)
    groups, separate = recurrent.check_groups(name, norm_over, 3), recurrent.check_terms(name, norm_terms)
    kept = wants_grad(input, weight_hh, weight, bias, h_0)
    settings = Settings(groups, separate, eps, reverse, kept, requested(backend, name, input))
    y, h = call(LayerNormGRURecipe, input, weight_hh, weight, bias, h_0, batch_sizes, settings)
    return y, h


@function
def layer_norm_gru_cell(
    input: Tensor, weight_hh: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
    h_0: Tensor | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """One step of :func:`layer_norm_gru`.

    Args:
        input: x of this step, ``(B, 3 H)``.
        weight_hh, weight, bias, h_0, options: as in :func:`layer_norm_gru`.

    Returns:
        The new state, ``(B, H)``.

    Raises: as :func:`layer_norm_gru`.

    Example:
        >>> nk.functional.layer_norm_gru_cell(torch.randn(2, 24), torch.randn(24, 8)).shape
        torch.Size([2, 8])
    """
    return layer_norm_gru(input.unsqueeze(0), weight_hh, weight, bias, h_0, **options)[1]
