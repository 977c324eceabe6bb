"""Group norm whose weight and bias differ from image to image, on the ops of the channel family as they are.

Planes (N, C, S) of a batch are one image of N C channels with N G groups: one call. Of channels_last each image is a
call of its own. Either way nothing of input's size is read or written that the same norm with one weight would not.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from torch import Tensor

from normkernels import _checks
from normkernels.ops._buffers import flat, statistic_dtype
from normkernels.ops._channel_layouts import buffers, lies_last, like, view
from normkernels.ops._channels import ChannelsRecipe, Settings, check_beside
from normkernels.ops._ways import differentiated_again, forward, gradients


class ImagesRecipe(ChannelsRecipe):
    """(input, skip, weight, bias, None, None) -> (y, mean, var); weight and bias (N, C), mean and var (N, G)."""

    @staticmethod
    def run(input, skip, weight, bias, mean, var, settings: Settings):
        fwd, _, _, groups, eps, activation, slope, backend = settings
        last, y = _columns(input), like(input, lies_last(input))
        mean, var = (input.new_empty(input.shape[0], groups, dtype=statistic_dtype(input)) for _ in range(2))
        x, s, to = (view(t, last, False) for t in (input, skip, y))
        for image, (w, b), tables in _calls((x, s, to), (weight, bias), (mean, var), last):
            fwd(*image[:2], w, b, image[2], *tables, eps, activation, slope, last, backend)
        return (y, mean, var), (input, None if activation == "identity" else skip, weight, bias, mean, var)

    @staticmethod
    def standard(*args):  # no operator of ONNX has a weight for each image
        return ImagesRecipe.composed(*args)

    @staticmethod
    def forward(ctx, *args):
        return forward(ctx, ImagesRecipe, args, 1)

    @staticmethod
    def backward(ctx, dy, *_):
        input, skip, weight, bias, mean, var = ctx.saved_tensors
        _, bwd, _, _, eps, activation, slope, backend = ctx.settings
        wanted = ctx.needs_input_grad
        if differentiated_again():
            grads = gradients(ImagesRecipe, (input, skip, weight, bias), (dy,), None, None, ctx.settings)
        else:
            grads, last = buffers(input, skip, weight, bias, wanted), _columns(input)
            images = [view(t, last, False) for t in (dy, input, skip, *grads[:2])]
            for image, (w, b, dw, db), tables in _calls(images, (weight, bias, *grads[2:]), (mean, var), last):
                bwd(
                    *image[:3], w, b, *tables, *image[3:], dw, db, eps, True, activation, slope, last, backend
                )  # fmt: skip
        if activation == "identity" and wanted[1]:
            grads[1] = dy
        return *grads, None, None, None


def _columns(input: Tensor) -> bool:
    """Whether the ops see (N, S, C): not where an image is one pixel, which is as well a plane."""
    return lies_last(input) and prod(input.shape[2:]) > 1


def _calls(images: Sequence[Any], parameters: Sequence[Any], tables: Sequence[Tensor], last: bool) -> Iterator[Any]:
    """(images, parameters, tables) of each call of an op, all of them views; none for no images."""
    N = images[0].shape[0]
    if last:
        for n in range(N):
            yield (
                [None if t is None else t[n : n + 1] for t in images],
                [None if t is None else flat(t[n]) for t in parameters],
                [t[n : n + 1] for t in tables],
            )
    elif N > 0:
        yield (
            [None if t is None else t.view(1, -1, t.shape[2]) for t in images],
            [flat(t) for t in parameters],
            [t.view(1, -1) for t in tables],
        )


def has_tables(input: Any, weight: Any, bias: Any) -> bool:
    """Whether weight or bias has a row for each image; a table of another shape is refused as any weight is."""
    tensors = [t for t in (weight, bias) if isinstance(t, Tensor)]
    return isinstance(input, Tensor) and any(t.dim() == 2 and t.shape == input.shape[:2] for t in tensors)


def check_images(
    name: str, input: Tensor, weight: Tensor | None, bias: Tensor | None, skip: Tensor | None,
    gate: Tensor | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """(input, skip, weight, bias) in their dtypes, weight and bias (N, C), both or one of them."""
    _checks.check_input(name, input)
    skip = check_beside(name, input, skip, gate)
    input, skip, weight, bias = _checks.prepared(name, input, skip, weight, bias)
    for argument, tensor in (("weight", weight), ("bias", bias)):
        _checks.check_parameter(name, argument, tensor, tuple(input.shape[:2]), input)
    return input, skip, weight, bias
