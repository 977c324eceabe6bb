"""The LSTM with layer normalisation (Ba et al. 2016, arXiv:1607.06450)."""

from typing import Any, NamedTuple

from torch import Tensor

from normkernels._backends import requested
from normkernels._backends.reference.layer_norm_lstm import layer_norm_lstm_ref
from normkernels._checks import check_eps
from normkernels._library import Kernel, kernel
from normkernels.ops import _recurrent as recurrent
from normkernels.ops import _sequence as steps
from normkernels.ops._buffers import flat
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function, gradients, wants_grad

# as layer_norm_rnn's, with four gates i, f, g, o side by side in input, dinput, a, da and gates (their values, after
# sigmoid and tanh); mean, rstd: (rows, groups). In the dtype of the arithmetic: c, the running cell (B, H), cells,
# what each step hands on, and previous_cells, what it was handed, (total, H). Normalised cells have cell_mean and
# cell_rstd (rows,), and raw_cells where it is the normalised ones that are handed on.
layer_norm_lstm_fwd: Kernel = kernel(
    "layer_norm_lstm_fwd(Tensor input, Tensor weight_hh, Tensor? weight, Tensor? bias, Tensor? cell_weight, "
    "Tensor? cell_bias, Tensor? batch_sizes, Tensor(a!) h, Tensor(b!) c, Tensor(c!) y, Tensor(d!) a, Tensor(e!) mean, "
    "Tensor(f!) rstd, Tensor(g!) gates, Tensor(h!) cells, Tensor(i!)? raw_cells, Tensor(j!)? cell_mean, "
    "Tensor(k!)? cell_rstd, int[] groups, bool separate, float eps, bool reverse)"
)
layer_norm_lstm_bwd: Kernel = kernel(
    "layer_norm_lstm_bwd(Tensor dy, Tensor gates, Tensor cells, Tensor? raw_cells, Tensor? cell_mean, "
    "Tensor? cell_rstd, Tensor previous_cells, Tensor a, Tensor mean, Tensor rstd, Tensor weight_hh, Tensor? weight, "
    "Tensor? cell_weight, Tensor? cell_bias, Tensor? batch_sizes, Tensor(a!) dh, Tensor(b!) dc, Tensor(c!) dinput, "
    "Tensor(d!)? da, Tensor(e!)? dweight, Tensor(f!)? dbias, Tensor(g!)? dcell_weight, Tensor(h!)? dcell_bias, "
    "int[] groups, bool reverse)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    groups: list[int]
    separate: bool
    norm_cell: str | None
    eps: float
    reverse: bool
    kept: bool
    backend: str | None


class LayerNormLSTMRecipe(Recipe):
    """(input, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0, batch_sizes) -> (y, h_n, c_n)."""

    @staticmethod
    def run(*args: Any) -> Filled:
        *inputs, h_0, c_0, batch_sizes, settings = args
        groups, separate, norm_cell, eps, reverse, kept, backend = settings
        input, normed = inputs[0], norm_cell is not None
        sequence = steps.sizes_of(input, inputs[1], batch_sizes)
        h, c, y, a, gates, cells, raw_cells = steps.cells_of(input, h_0, c_0, sequence, norm_cell, kept)
        mean, rstd = (sequence.like(input, kept, len(groups), wide=True) for _ in range(2))
        cell_mean, cell_rstd = (sequence.like(input, kept, 1, wide=True) if normed else None for _ in range(2))
        layer_norm_lstm_fwd(
            *steps.operands(*inputs), batch_sizes, h, c, y, a, mean, rstd, gates, cells, raw_cells, cell_mean,
            cell_rstd, groups, separate, eps, reverse, backend,
        )  # fmt: skip
        saved = [y, a, mean, rstd, gates, cells, raw_cells, cell_mean, cell_rstd] if kept else []
        return (steps.handed_out(y, sequence, kept), h, c.to(input.dtype)), (*args[:9], *saved)

    @staticmethod
    def composed(*args: Any, weight_hr: Tensor | None = None) -> tuple[Tensor, ...]:
        *inputs, h_0, c_0, batch_sizes, s = args
        return steps.composed(
            layer_norm_lstm_ref, inputs, (h_0, c_0), batch_sizes, groups=s.groups, separate=s.separate,
            norm_cell=s.norm_cell, eps=s.eps, reverse=s.reverse, weight_hr=weight_hr,
        )  # fmt: skip

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, LayerNormLSTMRecipe, args, 3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once, for a checkpoint without reentrance hands them out once
        inputs, batch_sizes = saved[:8], saved[8]
        if differentiated_again():
            return *gradients(LayerNormLSTMRecipe, inputs, grads, batch_sizes, ctx.settings), None, None
        y, a, mean, rstd, gates, cells, raw_cells, cell_mean, cell_rstd = saved[9:]
        groups, separate, _, _, reverse, _, backend = ctx.settings
        _, weight_hh, weight, _, cell_weight, cell_bias, *_ = inputs
        back = steps.way_back(ctx, inputs, batch_sizes, grads, separate, reverse)
        layer_norm_lstm_bwd(
            back.dy, gates, cells, raw_cells, cell_mean, cell_rstd, back.before(cells, 1), a, mean, rstd,
            weight_hh.contiguous(), flat(weight), flat(cell_weight), flat(cell_bias), batch_sizes, *back.dstates,
            back.dinput, back.da, *back.dparameters, groups, reverse, backend,
        )  # fmt: skip
        return back.gradients(back.before(y, 0))


@function
def layer_norm_lstm(
    input: Tensor, weight_hh: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
    cell_weight: Tensor | None = None, cell_bias: Tensor | None = None, h_0: Tensor | None = None,
    c_0: Tensor | None = None, batch_sizes: Tensor | None = None, eps: float = 1e-5, *, norm_over: str = "joint",
    norm_terms: str = "separate", norm_cell: str | None = "output", reverse: bool = False,
    weight_hr: Tensor | None = None, backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    r"""A layer-normalised LSTM over a whole sequence, given what the input contributes to each step.

    .. math::
        i, f, g, o = \sigma, \sigma, \tanh, \sigma\,(\text{LN}(W_{hh} h_{t-1}) \odot w + b + x_t), \quad
        c_t = f \odot c_{t-1} + i \odot g, \quad h_t = o \odot \tanh(\text{LN}(c_t) \odot w_c + b_c)

    and with ``norm_terms="sum"`` the gates are those of :math:`\text{LN}(W_{hh} h_{t-1} + x_t) \odot w + b`.

    Args:
        input: x, the projected input (``F.linear(x, weight_ih)``; normalise it before to have both terms normalised
            apart): ``(T, B, 4 H)``, gates i, f, g, o as in torch; or packed, ``(rows, 4 H)`` with ``batch_sizes``.
            float64, float32, bfloat16 or float16.
        weight_hh: ``(4 H, H)``, in input's dtype.
        weight, bias: w and b, ``(4 H,)``, in input's dtype or float32; None means 1 and 0.
        cell_weight, cell_bias: w_c and b_c, ``(H,)``, the same.
        h_0, c_0: the first states, ``(B, H)``, in input's dtype; None means 0.
        batch_sizes: rows of each step, as in ``torch.nn.utils.rnn.PackedSequence``: int64, on the CPU.
        eps: added to the variance.
        norm_over: one norm over all gates (``"joint"``), or one for each ``"gate"``.
        norm_terms: normalise the recurrent term alone (``"separate"``, Ba et al.), or the ``"sum"`` of both.
        norm_cell: hand c on as it is and normalise it inside tanh (``"output"``, Ba et al.), hand the normalised c on
            (``"carried"``, TensorFlow's and PyTorch's own examples), or None: no norm there.
        reverse: walk from the last step to the first.
        weight_hr: ``(P, H)``, in input's dtype: every h is ``weight_hr`` times the one above, ``(B, P)``, and weight_hh
            is ``(4 H, P)``. Such a call runs in ordinary torch ops, as ``backend="reference"`` does.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        y, every h, like input with H columns; h_n and c_n, ``(B, H)``, the last states of each row. Cells run in
        float32 (float64 for float64), and c_n is rounded once.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong, or there are no steps.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: input, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0, through time in one call; twice
    differentiable (through the reference). Kept for it: y, a and the gates (two tensors of input's size), the cells
    (twice with ``"carried"``), two statistics per row and group.
    Deterministic: yes.

    Example:
        >>> x, weight_hh = torch.randn(7, 2, 32), torch.randn(32, 8)
        >>> y, h_n, c_n = nk.functional.layer_norm_lstm(x, weight_hh)
        >>> y.shape, c_n.shape
        (torch.Size([7, 2, 8]), torch.Size([2, 8]))

    Source: Ba et al. 2016, arXiv:1607.06450, equations 20 to 22.
    """
    name = "layer_norm_lstm"
    recurrent.check_sequence(name, input, weight_hh, 4, batch_sizes, weight_hr, h_0=h_0, c_0=c_0)
    check_eps(name, eps)
    hidden = weight_hh.shape[0] // 4
    recurrent.check_parameters(name, input, 4 * hidden, weight=weight, bias=bias)
    recurrent.check_cell_parameters(name, input, hidden, norm_cell, cell_weight, cell_bias)
    settings = Settings(
        recurrent.check_groups(name, norm_over, 4), recurrent.check_terms(name, norm_terms), norm_cell, eps, reverse,
        wants_grad(input, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0),
        requested(backend, name, input),
    )  # fmt: skip
    tensors = input, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0, batch_sizes
    if weight_hr is None:
        y, h, c = call(LayerNormLSTMRecipe, *tensors, settings)
    elif settings.backend in (None, "reference"):
        y, h, c = LayerNormLSTMRecipe.composed(*tensors, settings, weight_hr=weight_hr)
    else:
        raise RuntimeError(f"{name}: backend {settings.backend!r} cannot run here: it has no projection (weight_hr)")
    return y, h, c


@function
def layer_norm_lstm_cell(
    input: Tensor, weight_hh: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
    cell_weight: Tensor | None = None, cell_bias: Tensor | None = None, h_0: Tensor | None = None,
    c_0: Tensor | None = None, **options: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One step of :func:`layer_norm_lstm`.

    Args:
        input: x of this step, ``(B, 4 H)``.
        weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0, options: as in :func:`layer_norm_lstm`.

    Returns:
        The new states h and c, ``(B, H)``.

    Raises: as :func:`layer_norm_lstm`.

    Example:
        >>> h, c = nk.functional.layer_norm_lstm_cell(torch.randn(2, 32), torch.randn(32, 8))
        >>> h.shape, c.shape
        (torch.Size([2, 8]), torch.Size([2, 8]))
    """
    x = input.unsqueeze(0)
    return layer_norm_lstm(x, weight_hh, weight, bias, cell_weight, cell_bias, h_0, c_0, **options)[1:]
