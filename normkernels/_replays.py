"""Calls that are made again: replayed by the extension built for this torch, recorded when one is met twice.

Whatever may steer a call is in its key (``csrc/replay/key.h``): how its tensors lie and whether they want gradients,
the values of all other arguments, the backend asked for, and how torch is set. Under a transform, a tracer, a mode,
with tensors of another kind, and where the extension is missing, Python makes the call, as it makes every first one.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normkernels import _record
from normkernels._place import to_build
from normkernels._record import Recorder

NAME = "normkernels._replay_" + "_".join(torch.__version__.split(".")[:2])


def _extension() -> tuple[Any, str | None]:
    if os.environ.get("NORMKERNELS_REPLAY") == "0":
        return None, "switched off by NORMKERNELS_REPLAY=0"
    try:
        return importlib.import_module(NAME), None
    except ImportError as error:
        return None, f"not built for torch {torch.__version__} ({error}); {to_build()}"


extension, missing = _extension()
replay: Any = getattr(extension, "replay", None)


class Context:
    """Stands for the ctx of an autograd.Function in a backward that a node of the extension calls."""

    saved_tensors: tuple
    needs_input_grad: tuple


def attributes(ctx: Any) -> tuple[dict[str, Any], dict[str, list[Tensor]]]:
    """(constants, lists of tensors) that are set on a ctx."""
    own = {k: v for k, v in vars(ctx).items() if k not in ("saved_tensors", "needs_input_grad")}
    tensors = {k: v for k, v in own.items() if isinstance(v, list) and any(isinstance(t, Tensor) for t in v)}
    return {k: v for k, v in own.items() if k not in tensors}, tensors


def calls() -> Any:
    """The calls of one function; None without the extension."""
    return extension.calls() if extension else None


def record(known: Any, key: bytes, public: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """public(*args, **kwargs), and how it went, to be known from now on."""
    leaves = _leaves([*args, *kwargs.values()])
    recorder = Recorder([a for a in leaves if isinstance(a, Tensor)])
    if not _record.watch(recorder):
        return public(*args, **kwargs)
    try:
        with recorder:
            found = public(*args, **kwargs)
    finally:
        _record.unwatch()
    held = [sys.intern(a) for a in [*leaves, *kwargs] if type(a) is str]
    extension.learn(known, key, held, _plan(recorder, found))
    return found


def _leaves(args: Sequence[Any]) -> list[Any]:
    """All arguments, those in lists too, in the order of the key."""
    found: list[Any] = []
    for a in args:
        found.extend(_leaves(a) if isinstance(a, list | tuple) else [a])
    return found


def _plan(recorder: Recorder, found: Any) -> Any:
    """What the extension runs; None where it cannot."""
    results = found if isinstance(found, tuple) else (found,)
    returned = [recorder.register(t) for t in results]
    if any(recorder.memory(r) < recorder.inputs for r in returned):
        recorder.refuse("it returns what it was given")
    if recorder.written and torch._C._current_graph_task_id() != -1:
        recorder.refuse("a checkpoint makes it again, and may stop it before it writes")
    graph = _graph(recorder, results) if any(t.requires_grad for t in results) else None
    if recorder.why is not None:
        return None
    graphs, parts = ([], []) if graph is None else graph
    after = [r for _, _, given in recorder.after for _, v in given for r in (v if isinstance(v, list) else [v])]
    written = sorted(recorder.written)
    steps = recorder.steps
    return extension.Plan(
        recorder.inputs, steps, [*returned, *graphs, *after], written, returned, not isinstance(found, tuple),
        extension.Graph(*parts) if parts else None, recorder.after,
    )  # fmt: skip


def _graph(recorder: Recorder, results: Sequence[Tensor]) -> tuple[list[int], list[Any]] | None:
    """(registers that it needs, arguments of the extension's Graph) of the one recipe of a call."""
    if len(recorder.graphs) != 1:
        return recorder.refuse("it is made of several differentiable calls")
    recipe, ctx, args, outputs, kept, carry = recorder.graphs[0]
    carried = outputs[:carry]
    if any(t.requires_grad and (t._is_view() or not any(t is c for c in carried)) for t in results):
        return recorder.refuse("what it returns is not what a recipe returned")
    inputs = [recorder.register(a) if isinstance(a, Tensor) else -1 for a in args]
    if any(
        isinstance(a, Tensor) and a.requires_grad and r >= recorder.inputs for a, r in zip(args, inputs, strict=True)
    ):
        return recorder.refuse("a recipe is given something differentiable that was computed before it")
    constants, lists = attributes(ctx)
    held = [recorder.register(t) for ts in lists.values() for t in ts]
    registers = [recorder.register(t) for t in carried], [recorder.register(t) for t in kept], held
    layout = {name: len(ts) for name, ts in lists.items()}
    run = _backward(recipe, constants, layout, len(outputs))
    name = f"{recipe.__name__}Backward"
    return [r for rs in (inputs, *registers) for r in rs], [name, run, inputs, *registers, recipe.materialize]


def _backward(recipe: Any, constants: dict[str, Any], layout: dict[str, int], outputs: int) -> Callable[..., tuple]:
    """What a node does in Python: always where it has to be differentiable, else once, to record it."""
    left_layout: dict[str, int] = {}

    def backward(kept, held, left, grads, needed, wanted):
        ctx: Any = Context()
        vars(ctx).update(constants, **_named(layout, held), **_named(left_layout, left))
        ctx.saved_tensors, ctx.needs_input_grad = kept, needed
        grads = *grads, *[None] * (outputs - len(grads))
        recorder = Recorder([*kept, *held, *grads]) if wanted else None
        if recorder is None or not _record.watch(recorder):
            found, recorder = recipe.backward(ctx, *grads), None
        else:
            try:
                with recorder:
                    found = recipe.backward(ctx, *grads)
            finally:
                _record.unwatch()
        now = {name: ts for name, ts in attributes(ctx)[1].items() if name not in layout}
        left_layout.update({name: len(ts) for name, ts in now.items()})
        after = [t for ts in now.values() for t in ts]
        return tuple(found), after, recorder and _seen(recorder, found, after)

    return backward


def _named(layout: dict[str, int], tensors: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """The lists that were laid one after the other."""
    parts = iter(tensors)
    return {name: [next(parts) for _ in range(n)] for name, n in layout.items()} if tensors else {}


def _seen(recorder: Recorder, found: Sequence[Any], after: Sequence[Tensor]) -> Any:
    """A backward that was recorded, as the extension runs it; None where it cannot."""
    gradients, left = [recorder.register(t) for t in found], [recorder.register(t) for t in after]
    if recorder.why is not None or recorder.after or recorder.graphs:
        return None
    written = sorted(recorder.written)
    return extension.Backward(recorder.inputs, recorder.steps, [*gradients, *left], written, gradients, left)
