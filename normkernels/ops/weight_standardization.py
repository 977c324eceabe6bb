"""Weight standardisation (Qiao et al. 2019, arXiv:1903.10520)."""

import torch
from torch import Tensor

from normkernels._library import kernel
from normkernels.backends import requested
from normkernels.backends.reference.weight_standardization import weight_standardization_ref
from normkernels.ops import _checks
from normkernels.ops._channels import statistic_dtype
from normkernels.ops._filters import check_weight, order, rows, shaped
from normkernels.ops._rows import differentiable_backward, empty, flat

# w, y, dy, dw: contiguous (M, N), a filter in each row, in one dtype; gain, dgain: (M,), in w's dtype or float32;
# mean, rstd: (M,)
weight_standardization_fwd = kernel(
    "weight_standardization_fwd(Tensor w, Tensor? gain, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) rstd, float eps)"
)
weight_standardization_bwd = kernel(
    "weight_standardization_bwd(Tensor dy, Tensor w, Tensor? gain, Tensor mean, Tensor rstd, Tensor(a!) dw, "
    "Tensor(b!)? dgain)"
)


class WeightStandardizationFunction(torch.autograd.Function):
    """(w, gain) -> the standardised weight, in w's shape."""

    @staticmethod
    def forward(ctx, w, gain, eps, backend):
        dims, filters = order(w, 0), w.shape[0]
        x = rows(w, dims, filters)
        y, mean, rstd = torch.empty_like(x), *(x.new_empty(filters, dtype=statistic_dtype(w)) for _ in range(2))
        weight_standardization_fwd(x, flat(gain), y, mean, rstd, eps, backend)
        ctx.save_for_backward(w, gain, mean, rstd)
        ctx.settings = dims, filters, eps, backend
        return shaped(y, w, dims)

    @staticmethod
    def backward(ctx, dy):
        w, gain, mean, rstd = ctx.saved_tensors
        dims, filters, eps, backend = ctx.settings
        if torch.is_grad_enabled():  # create_graph=True

            def reference(w, gain):
                return (shaped(weight_standardization_ref(rows(w, dims, filters), gain, eps).to(w.dtype), w, dims),)

            return *differentiable_backward(reference, (w, gain), (dy,)), None, None
        x = rows(w, dims, filters)
        dw, dgain = torch.empty_like(x), empty(gain, ctx.needs_input_grad[1])
        weight_standardization_bwd(rows(dy, dims, filters), x, flat(gain), mean, rstd, dw, flat(dgain), backend)
        return shaped(dw, w, dims), dgain, None, None


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
    Source: Qiao et al. 2019, arXiv:1903.10520, equations 3 and 4.
    """
    name = "weight_standardization"
    check_weight(name, "w", w)
    _checks.check_parameter(name, "gain", gain, (w.shape[0],), w, like="w")
    return WeightStandardizationFunction.apply(w, gain, eps, requested(backend, name))
