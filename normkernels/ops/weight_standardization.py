"""Weight standardisation (Qiao et al. 2019, arXiv:1903.10520)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkernels import _checks
from normkernels._backends import requested
from normkernels._backends.reference.weight_standardization import weight_standardization_ref
from normkernels._library import Kernel, kernel
from normkernels.ops._buffers import empty, flat, statistic_dtype
from normkernels.ops._filters import check_weight, order, rows, shaped
from normkernels.ops._ways import Filled, Recipe, call, differentiated_again, forward, function, gradients

# w, y, dy, dw: contiguous (M, N), a filter in each row, in one dtype; gain, dgain: (M,), in w's dtype or float32;
# mean, rstd: (M,)
weight_standardization_fwd: Kernel = kernel(
    "weight_standardization_fwd(Tensor w, Tensor? gain, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) rstd, float eps)"
)
weight_standardization_bwd: Kernel = kernel(
    "weight_standardization_bwd(Tensor dy, Tensor w, Tensor? gain, Tensor mean, Tensor rstd, Tensor(a!) dw, "
    "Tensor(b!)? dgain)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    eps: float
    backend: str | None


class WeightStandardizationRecipe(Recipe):
    """(w, gain) -> (the standardised weight,), in w's shape."""

    @staticmethod
    def run(w: Tensor, gain: Tensor | None, settings: Settings) -> Filled:
        dims, filters = order(w, 0), w.shape[0]
        x = rows(w, dims, filters)
        y, mean, rstd = torch.empty_like(x), *(x.new_empty(filters, dtype=statistic_dtype(w)) for _ in range(2))
        weight_standardization_fwd(x, flat(gain), y, mean, rstd, *settings)
        return (shaped(y, w, dims),), (w, gain, mean, rstd)

    @staticmethod
    def composed(w: Tensor, gain: Tensor | None, settings: Settings) -> tuple[Tensor, ...]:
        dims = order(w, 0)
        y = weight_standardization_ref(rows(w, dims, w.shape[0]), gain, settings.eps)
        return (shaped(y.to(w.dtype), w, dims),)

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        return forward(ctx, WeightStandardizationRecipe, args, 1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        w, gain, mean, rstd = ctx.saved_tensors
        if differentiated_again():
            return *gradients(WeightStandardizationRecipe, (w, gain), (dy,), ctx.settings), None
        dims, filters = order(w, 0), w.shape[0]
        x = rows(w, dims, filters)
        dw, dgain = torch.empty_like(x), empty(gain, ctx.needs_input_grad[1])
        weight_standardization_bwd(
            rows(dy, dims, filters), x, flat(gain), mean, rstd, dw, flat(dgain), ctx.settings.backend
        )  # fmt: skip
        return shaped(dw, w, dims), dgain, None


@function
def weight_standardization(
    w: Tensor, gain: Tensor | None = None, eps: float = 1e-5, *, backend: str | None = None
) -> Tensor:
    r"""Weight standardisation: each filter of a weight with mean 0 and variance 1, times a gain.

    .. math::
        \hat w_i = g_i \frac{w_i - \text{mean}(w_i)}{\sqrt{\text{var}(w_i) + \epsilon}}

    Args:
        w: the weight; float64, float32, bfloat16 or float16, any shape and strides, a filter in each slice along dim 0.
        gain: g, ``(M,)``, w's dtype or float32; None means 1. Scaled weight standardisation (NFNets) has
            :math:`g_i / \sqrt{N}` in its place, N being the number of elements of a filter.
        eps: added to the biased variance, inside the root (units of w²). In 16 bits some copies take 1e-3.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Returns:
        :math:`\hat w`, w's shape, dtype and layout; statistics are in float32 (float64 for float64), and it is rounded
        once.

    Raises:
        ValueError: a shape, dtype, device, layout or name is wrong.
        RuntimeError: the backend asked for cannot run here (the message says why).

    Gradients: w and gain; twice differentiable (through the reference). Deterministic: yes.
    Differs from other code: the original divides by the unbiased deviation plus 1e-5, timm has eps 1e-6.

    Example:
        >>> w = nk.functional.weight_standardization(torch.randn(4, 8))
        >>> torch.allclose(w.mean(1), torch.tensor(0.0), atol=1e-6)
        True

    Source: Qiao et al. 2019, arXiv:1903.10520, equations 3 and 4.
    """
    name = "weight_standardization"
    check_weight(name, "w", w)
    _checks.check_eps(name, eps)
    _checks.check_parameter(name, "gain", gain, (w.shape[0],), w, like="w")
    return call(WeightStandardizationRecipe, w, gain, Settings(eps, requested(backend, name, w)))[0]
