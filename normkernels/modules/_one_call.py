"""Layers as Dynamo sees them: each is one call in its graph, of its tensors and of a string that says all else.

Dynamo guards the string in place of each number, and none of the Python below. AOTAutograd looks inside the call, where
a layer that stands in for the module runs the forward that everybody runs.
"""

import functools
import json
import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from normkernels import _backends
from normkernels.ops._whole import allowed, whole

Forward = TypeVar("Forward", bound=Callable[..., Any])
PLAIN: dict[str, Callable[..., Any]] = {}  # forwards that Dynamo looks into where one call is not to be had


def one_call(forward: Forward) -> Forward:
    """A forward that Dynamo does not look into: it looks into :func:`_seen`, with a code that names this forward."""
    name = f"{forward.__module__}.{forward.__qualname__}"
    parts = forward.__code__, forward.__globals__, forward.__name__, forward.__defaults__, forward.__closure__
    PLAIN[name] = functools.update_wrapper(types.FunctionType(*parts), forward)
    code = _seen.__code__
    named = code.replace(co_consts=tuple(name if c == "forward" else c for c in code.co_consts))
    # torch has no public name for this: is_dynamo_compiling() in each forward costs a call and 17 guards a graph,
    # methods are unknown to allow_in_graph and substitute_in_graph, nonstrict_trace does not guard eps;
    # a Dynamo without this name looks into the forward.
    forward._torchdynamo_inline = types.FunctionType(named, globals(), forward.__name__)  # type: ignore[attr-defined]
    return forward


def _seen(self, *args, **kwargs):
    said = self._said
    if said is None or not allowed():
        return PLAIN["forward"](self, *args, **kwargs)
    weight = self.weight if '"weight"' in said else None  # what is not read needs no guard
    bias = self.bias if '"bias"' in said else None
    mean = self.running_mean if '"running_mean"' in said else None
    var = self.running_var if '"running_var"' in said else None
    batches = self.num_batches_tracked if '"num_batches_tracked"' in said else None
    return _layer(_backends._request, False, said, weight, bias, mean, var, batches, *args, **kwargs)


def say(layer: Any) -> str | None:
    """What its forward reads besides tensors, and which of those; None: Dynamo has to look into the forward.

    It has to of classes that are not ours, which may read other things, and while a layer is still being made.
    """
    kind, found = type(layer), {}
    ours = kind.__module__.startswith("normkernels.") and hasattr(kind.forward, "_torchdynamo_inline")
    if not ours or _kind(kind.__module__, kind.__qualname__) is not kind:
        return None
    for name in layer.SAID:
        found[name] = vars(layer).get(name, getattr(kind, name, None))
    try:
        return json.dumps([kind.__module__, kind.__qualname__, layer.tensors_read(), found], default=_format)
    except (TypeError, AttributeError):
        return None


def _format(value: Any) -> str:
    if isinstance(value, torch.memory_format):
        return str(value).removeprefix("torch.")
    raise TypeError(f"{type(value).__name__} is not said")


def _kind(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)


@functools.lru_cache
def _heard(said: str) -> tuple[Any, dict[str, Any]]:
    """(class, attributes) of what was said."""
    module, name, _, found = json.loads(said)
    extras = found["extras"]
    if "memory_format" in extras:
        extras["memory_format"] = getattr(torch, extras["memory_format"])
    return _kind(module, name), {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def layer(
    said: Any, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    num_batches_tracked: Tensor | None, *args: Any, **kwargs: Any,
) -> Any:  # fmt: skip
    """The call of a layer that was said so."""
    kind, attributes = _heard(said)
    found = object.__new__(kind)
    buffers = {"running_mean": running_mean, "running_var": running_var, "num_batches_tracked": num_batches_tracked}
    own = {"_parameters": {"weight": weight, "bias": bias}, "_buffers": buffers, "_modules": {}}
    vars(found).update(attributes, **own)
    return kind.forward(found, *args, **kwargs)


_layer = whole(layer, layer)
