"""The ways that a call goes, and the recipe of a normaliser that all of them read.

*Eager* and under ``torch.compile``: an ``autograd.Function`` around ops that fill buffers. Exported, and without
gradients: the ops alone.
*Composed*: ordinary differentiable torch ops, for whatever has to look inside: transforms of torch.func, forward-mode
AD, batched gradients, jit, ONNX, tensors that are made of others; and always with ``backend="reference"``.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from normkernels import _backends, _record, _replays
from normkernels._arguments import explained
from normkernels._backends import transformed
from normkernels._checks import PLAIN
from normkernels._messages import warn
from normkernels.ops import _whole
from normkernels.ops._buffers import differentiable_backward
from normkernels.ops._inlined import small

Public = TypeVar("Public", bound=Callable[..., Any])
Filled = tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]  # outputs, and what backward needs
_GRADS_BATCHED: Any = torch._C._parse_dispatch_key("VmapMode")  # autograd's own vmap sets it for is_grads_batched
_closed_forms = False


@contextlib.contextmanager
def closed_forms() -> Iterator[None]:
    """Inside, the reference runs through its ops as the kernels do: closed forms, rounded where a kernel stores."""
    global _closed_forms
    before, _closed_forms = _closed_forms, True
    try:
        yield
    finally:
        _closed_forms = before


class Recipe(torch.autograd.Function):
    """What a normaliser allocates, keeps and differentiates. The last argument of a call is its ``Settings``."""

    materialize = True  # whether gradients that do not arrive are zeros, or None

    @staticmethod
    def run(*args: Any) -> Filled:
        """(outputs, what backward needs): buffers, and the ops that fill them."""
        raise NotImplementedError

    @staticmethod
    def composed(*args: Any) -> tuple[Tensor, ...]:
        """The same outputs by ordinary differentiable torch ops."""
        raise NotImplementedError

    @classmethod
    def standard(cls, *args: Any) -> tuple[Tensor, ...]:
        """The same outputs by what ONNX has operators for, where it has any."""
        return cls.composed(*args)

    @classmethod
    def inlined(cls, *args: Any) -> tuple[Tensor, ...] | None:
        """The same on the CPU, by what Inductor fuses with what is around it; None: by the ops."""
        return None


def forward(ctx, recipe: type[Recipe], args: Sequence[Any], carry: int) -> tuple[Tensor, ...]:
    """What a recipe's ``forward`` does: run, and keep. The first ``carry`` outputs have a gradient."""
    outputs, kept = recipe.run(*args)
    ctx.save_for_backward(*kept)
    ctx.set_materialize_grads(recipe.materialize)
    ctx.settings = args[-1]
    if len(outputs) > carry:
        ctx.mark_non_differentiable(*outputs[carry:])
    if recorder := _record.active():
        recorder.graphs.append((recipe, ctx, args, outputs, kept, carry))
    return outputs


def call(recipe: type[Recipe], *args, derivative: bool = True) -> tuple[Tensor, ...]:
    """The outputs of a recipe, whichever way they have to come.

    ``derivative``: whether its gradient is that; torch.compile cannot look into another one.
    """
    exporting = torch.compiler.is_exporting()
    if exporting and torch.onnx.is_in_onnx_export():
        return recipe.standard(*args)
    opaque = not derivative and torch.compiler.is_compiling() and torch.is_grad_enabled()
    if args[-1].backend == "reference" and not (opaque or _closed_forms):
        if hasattr(args[0], "placements"):  # a DTensor's gradient is a sum in parts, perhaps: it lies where input does
            args = (args[0].redistribute(placements=args[0].placements), *args[1:])
        return recipe.composed(*args)
    if torch.compiler.is_compiling() and not exporting and _inductors(*args):
        found = recipe.inlined(*args)
        if found is not None:
            return found
    if exporting or not torch.is_grad_enabled():
        return recipe.run(*args)[0]
    return recipe.apply(*(_compilable(args) if torch.compiler.is_compiling() else args))


def _inductors(input: Tensor, *others: Any) -> bool:
    """Whether Inductor's own code is the faster one: without gradients, and with them for what stays in a cache."""
    if others[-1].backend is not None or input.device.type != "cpu":
        return False
    return not torch.is_grad_enabled() or small(input)


def _compilable(args: Sequence[Any]) -> list[Any]:
    """The same arguments as torch.compile can take them: each tensor once, and numbers that are looked at here.

    A number may be a symbol there; one that is met in the graph of one call only is not known in that of the next.
    """
    found: list[Any] = []
    for a in args[:-1]:
        twice = isinstance(a, Tensor) and any(a is b for b in found)
        found.append(a.view_as(a) if twice else a)
    settings = args[-1]
    return [*found, settings._replace(**{k: v for k, v in settings._asdict().items() if isinstance(v, float)})]


class OwnGradient(torch.autograd.Function):
    """``value(*inputs)`` whose gradient is ``gradient(ctx, dy, *inputs, *seen)``: affine in dy, and not the derivative.

    The one exception to ordinary ops alone, of ordinary ops itself, so that every transform goes through it. Forward
    mode takes the transpose of the gradient's linear part.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(value, gradient, *tensors):
        return value(*tensors)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.gradient, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.shape = output.shape

    @staticmethod
    def backward(ctx, dy):
        return None, None, *ctx.gradient(ctx, dy, *ctx.saved_tensors)

    @staticmethod
    def jvp(ctx, *tangents):
        tensors, tangents = ctx.saved_tensors, tangents[2:]
        moved = [i for i in range(4) if tangents[i] is not None]  # these four move; a state is constant

        def linear(dy):
            found = ctx.gradient(None, dy, *tensors)
            return tuple(found[i] for i in moved)

        transposed = torch.func.vjp(linear, tensors[0].new_zeros(ctx.shape))[1]
        return transposed(tuple(tangents[i] for i in moved))[0]


def own_gradient(value, gradient, inputs, seen) -> Tensor:
    """The value, with a gradient of its own. All tensors that both read are given, for transforms to see them."""
    if not torch.is_grad_enabled():
        return value(*inputs)
    if torch._C._get_tracing_state() is not None:
        warn("a trace cannot hold a gradient that is not the derivative: no gradient flows here")
        return value(*(None if t is None else t.detach() for t in inputs))
    given = len(inputs)
    return OwnGradient.apply(lambda *tensors: value(*tensors[:given]), gradient, *inputs, *seen)


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether a backward may follow."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def differentiated_again() -> bool:
    """Whether a backward has to be made of differentiable ops: ``create_graph=True``, or many gradients at once."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.is_grad_enabled()
    return transformed() is not None or torch._C._dispatch_tls_is_dispatch_key_included(_GRADS_BATCHED)


def gradients(recipe: type[Recipe], inputs: Sequence[Tensor | None], grads: Sequence[Tensor | None], *others) -> list:
    """Of the first outputs of ``recipe.composed(*inputs, *others)``, by inputs; they can be differentiated again."""

    def composed(*given):
        return recipe.composed(*given, *others)[: len(grads)]

    return differentiable_backward(composed, inputs, grads)


def seen_whole(inner: Public) -> Public:
    """Part of a public function that Dynamo looks into: it sees this part whole."""
    whole = _whole.whole(inner, inner)

    @functools.wraps(inner)
    def seen(*args):
        if torch.compiler.is_dynamo_compiling() and _whole.allowed():
            besides = _backends._request, _closed_forms
            return whole(*besides, *args)
        return inner(*args)

    return seen  # type: ignore[return-value]


def function(public: Public, takes_functions: bool = False) -> Public:
    """A public function; fx proxies and subclasses of Tensor see it whole, as torch's own functions are seen.

    A call that was made before is replayed. Dynamo sees it whole too, and guards its arguments instead of all the
    Python below; AOTAutograd looks inside. What may change besides is read where Dynamo sees it, and guards that.
    ``takes_functions``: an argument may be a function, which no graph holds; then Dynamo looks inside.
    """
    calls = _replays.calls()

    def inner(*args, **kwargs):
        if args and (type(args[0]) in PLAIN or getattr(args[0], "is_nested", False) is True):
            return public(*args, **kwargs)
        given = (*args, *kwargs.values())
        if has_torch_function(given):
            return handle_torch_function(seen, given, *args, **kwargs)
        return public(*args, **kwargs)

    whole = _whole.whole(public, inner)

    @functools.wraps(public)
    def seen(*args, **kwargs):
        if torch.compiler.is_dynamo_compiling() and _whole.allowed():
            if not (takes_functions and any(callable(a) for a in (*args, *kwargs.values()))):
                return whole(_backends._request, _closed_forms, *args, **kwargs)
        try:
            if calls and not (torch.compiler.is_dynamo_compiling() or _closed_forms):
                found = _replays.replay(calls, _backends._request, args, kwargs)
                if found is not None:
                    return _replays.record(calls, found, public, args, kwargs) if type(found) is bytes else found
            return inner(*args, **kwargs)
        except (TypeError, AttributeError, RuntimeError) as error:
            better = explained(error, public, args, kwargs)
            if better is error:
                raise
            raise better from None

    return seen  # type: ignore[return-value]
