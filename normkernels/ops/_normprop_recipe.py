"""Normalization Propagation: its ops and its recipe."""

from typing import NamedTuple

import torch
from torch import Tensor

from normkernels._backends.reference.normprop import normprop_ref
from normkernels._library import kernel, watched
from normkernels.ops._buffers import empty, flat, statistic_dtype
from normkernels.ops._channel_layouts import view
from normkernels.ops._filters import order, rows, shaped
from normkernels.ops._normprop import Epilogue, Product
from normkernels.ops._ways import Recipe, differentiated_again, forward, gradients
from normkernels.ops.weight_norm import weight_norm_bwd, weight_norm_fwd

# u, y, dy, du, saved (y with from_output, else u): contiguous (N, C, S), or (N, S, C) with channels_last, y may be u;
# bias, slope, dbias, dslope: (C,), in u's dtype or float32; slope: prelu's, and then scale and shift follow from it
normprop_fwd = kernel(
    "normprop_fwd(Tensor u, Tensor? bias, Tensor? slope, Tensor(a!) y, str activation, float leak, float scale, "
    "float shift, float kink_low, float kink_high, float low, float high, bool channels_last)"
)
normprop_bwd = kernel(
    "normprop_bwd(Tensor dy, Tensor saved, Tensor? bias, Tensor? slope, Tensor(a!) du, Tensor(b!)? dbias, "
    "Tensor(c!)? dslope, str activation, float leak, float scale, float shift, float low, float high, "
    "bool from_output, bool channels_last)"
)


class Settings(NamedTuple):
    """Everything of a call that is no tensor."""

    product: Product
    epilogue: Epilogue
    grad: bool  # whether a backward may follow
    backend: str | None


def scale_filters(weight: Tensor, gain: Tensor, dtype: torch.dtype, backend: str | None) -> tuple[Tensor, Tensor]:
    """gain weight / |weight| in ``dtype``, in the layout of weight, and the norms."""
    dims = order(weight, 0)
    filters = rows(weight.detach(), dims, len(weight))
    scaled, norm = torch.empty_like(filters, dtype=dtype), filters.new_empty(len(weight), dtype=statistic_dtype(weight))
    weight_norm_fwd(filters, flat(gain.detach()), scaled, norm, backend)
    return shaped(scaled, weight, dims), norm


class NormPropRecipe(Recipe):
    """(input, weight, gain, bias, slope) -> (y,). slope: (C,), of prelu, else None."""

    @staticmethod
    def run(input, weight, gain, bias, slope, settings: Settings):
        product, e, grad, backend = settings
        scaled, norm = scale_filters(weight, gain, input.dtype, backend)
        u = product(input, scaled)
        ours = not (watched(u) or u._is_view())  # nobody else has or sees u: y can take its place
        y = u if ours and (e.from_output or not grad) else torch.empty_like(u)
        (at, last), (to, _) = product.channels(u), product.channels(y)
        normprop_fwd(at, flat(bias), flat(slope), to, *e[:4], *e.kinks, *e.bounds, last, backend)
        kept = None if e.activation == "identity" else y if e.from_output else u  # a slope of 1 needs neither
        return (y,), (input, weight, gain, bias, slope, scaled, norm, kept)

    @staticmethod
    def composed(input, weight, gain, bias, slope, settings: Settings):
        product, e, *_ = settings
        return (normprop_ref(input, weight, gain, bias, slope, product, e.activation, e.leak),)

    @staticmethod
    def forward(ctx, *args):
        return forward(ctx, NormPropRecipe, args, 1)

    @staticmethod
    def backward(ctx, dy):
        *inputs, scaled, norm, saved = ctx.saved_tensors
        input, weight, gain, bias, slope = inputs
        (product, e, _, backend), wanted = ctx.settings, ctx.needs_input_grad
        if differentiated_again():
            return *gradients(NormPropRecipe, inputs, (dy,), ctx.settings), None
        saved = dy.contiguous() if saved is None else saved
        kept, last = product.channels(saved)
        du, dbias, dslope = torch.empty_like(saved), empty(bias, wanted[3]), empty(slope, wanted[4])
        to = product.channels(du)[0]
        normprop_bwd(
            _like(dy, kept, last, product), kept, flat(bias), flat(slope), to, dbias, dslope, *e[:4], *e.bounds,
            e.from_output, last, backend,
        )  # fmt: skip
        dx, dw = product.backward(du, input, scaled, (wanted[0], wanted[1] or wanted[2]))
        dweight, dgain = (
            _filter_gradients(dw, weight, gain, norm, wanted[2], backend) if dw is not None else (None,) * 2
        )
        return dx, dweight if wanted[1] else None, dgain, dbias, dslope, None


def _like(dy: Tensor, kept: Tensor, last: bool, product: Product) -> Tensor:
    """dy in the layout of what was kept."""
    if not product.stride:
        return dy.reshape(kept.shape).contiguous()
    return view(dy, last, True)


def _filter_gradients(dw, weight, gain, norm, gain_wanted, backend) -> tuple[Tensor, Tensor | None]:
    dims, filters = order(weight, 0), len(weight)
    v, dgain = rows(weight, dims, filters), empty(gain, gain_wanted)
    dv = torch.empty_like(v)
    weight_norm_bwd(rows(dw, dims, filters), v, flat(gain), norm, dv, dgain, backend)
    return shaped(dv, weight, dims), dgain
