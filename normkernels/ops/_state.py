"""Normalisers that carry a state from call to call: how it moves on, and how a recomputation finds it again.

Activation checkpointing makes a training call again inside the backward pass. That call must see the state that the
first one saw, and must not move it on. So every call remembers its state, before and after, for as long as its graph
lives; and a call inside a backward pass is taken for the latest one that leads to the same state after it.
"""

import math
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

State = list[Tensor]
NO_GRAPH = 64  # calls without a graph that are remembered: those that a reentrant checkpoint makes again


class Call:
    """The state before and after one training call."""

    def __init__(self, before: State, after: State) -> None:
        self.before, self.after = before, after


class Calls:
    """The past calls of one state; those with a graph die with it."""

    def __init__(self) -> None:
        self._all: list[weakref.ref[Call]] = []
        self._graphless: deque[Call] = deque(maxlen=NO_GRAPH)

    def add(self, call: Call, y: Tensor) -> None:
        self._all = [ref for ref in self._all if ref() is not None] + [weakref.ref(call)]
        node: Any = y.grad_fn
        if node is None:
            self._graphless.append(call)
        else:
            node.metadata["normkernels call"] = call

    def __iter__(self) -> Iterator[Call]:
        return (call for ref in reversed(self._all) if (call := ref()) is not None)


_calls: Any = WeakTensorKeyDictionary()  # owner of a state -> Calls


def advance(owner: Tensor, state: Sequence[Tensor], run: Callable[[State], tuple[Tensor, State]]) -> Tensor:
    """y of ``run(state) -> (y, new state)``, with the state moved on in place after success, once for each call.

    ``owner``: the tensor by which past calls are found; a part of the state, or what parts of it are views of.
    """
    before = [t.detach().clone() for t in state]
    if torch.compiler.is_compiling():
        y, after = run(before)
        _move(state, after)
        return y
    calls: Calls = _calls.setdefault(owner, Calls())
    first = _recomputed(calls, run) if torch._C._current_graph_task_id() != -1 else None
    if first is not None:
        return run(first.before)[0]
    y, after = run(before)
    _move(state, after)
    calls.add(Call(before, after), y)
    return y


def accumulate(ctx, state: Sequence[Tensor], run: Callable[[State], State]) -> None:
    """``run(state) -> new state`` in a backward: a second one through the same graph starts where the first one did."""
    if torch.compiler.is_compiling():
        _move(state, run([t.detach().clone() for t in state]))
    elif (before := getattr(ctx, "accumulated_from", None)) is not None:
        run(before)
    else:
        ctx.accumulated_from = [t.detach().clone() for t in state]
        _move(state, run(ctx.accumulated_from))


def _recomputed(calls: Calls, run: Callable[[State], tuple[Tensor, State]]) -> Call | None:
    candidates = list(calls)
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    with torch.no_grad():  # nothing is saved, so the recomputation's own tensors keep their places
        for call in candidates:
            if all(map(torch.equal, run(call.before)[1], call.after)):
                return call
    return None


def finite(pair: Sequence[Tensor] | Tensor) -> Tensor:
    """In which channels two statistics (C,) are both finite: what is not would stay in a state for ever."""
    return (pair[0] + pair[1]).abs() < math.inf


def sound(new: Sequence[Tensor], old: Sequence[Tensor]) -> State:
    """Two statistics (C,) after a call, but ``old`` in the channels where one of them is not finite."""
    kept = finite(new)
    return [torch.where(kept, a, b) for a, b in zip(new, old, strict=True)]


@torch.no_grad()
def _move(state: Sequence[Tensor], after: State) -> None:
    for t, new in zip(state, after, strict=True):
        t.copy_(new)
