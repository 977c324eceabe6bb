"""Normalisers that carry a state from call to call: how it moves on, and how a recomputation finds it again.

Activation checkpointing makes a training call again inside the backward pass. That call must see the state that the
first one saw, and must not move it on. So every call remembers its state, before and after, for as long as its graph
lives; and a call inside a backward pass is taken for the latest one that leads to the same state after it.
"""

import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils import checkpoint
from torch.utils.weak import WeakTensorKeyDictionary

from normkernels import _record
from normkernels._backends import transformed
from normkernels._checks import PLAIN

State = list[Tensor]
_C: Any = torch._C._functorch  # type: ignore[reportAttributeAccessIssue]
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
    before = [_kept(t) for t in state] if _traced(state) else _copies(state)
    if torch.compiler.is_compiling() or transformed() is not None:
        y, after = run(before)
        move(state, after)
        return y
    first = None
    if torch._C._current_graph_task_id() != -1:
        _record.refuse("it may be one that was made before")
        first = _recomputed(_calls.get(owner, ()), run)
    if first is not None:
        return run(first.before)[0]
    y, after = run(before)
    move(state, after)
    _remember(owner, y, before, after)
    if recorder := _record.active():
        recorder.then(_remember, owner, y, before, after)
    return y


def _remember(owner: Tensor, y: Tensor, before: State, after: State) -> None:
    _calls.setdefault(owner, Calls()).add(Call(before, after), y)


_LIBRARY = torch.library.Library("normkernels", "FRAGMENT")
_LIBRARY.define("kept(Tensor state) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
_LIBRARY.define("met(Tensor[] state) -> Tensor[]", tags=(torch.Tag.pt2_compliant_tag,))
_kept, _met = torch.ops.normkernels.kept.default, torch.ops.normkernels.met.default


@torch.library.impl(_LIBRARY, "kept", "CompositeImplicitAutograd")
def _copy_to_keep(state: Tensor) -> Tensor:
    """A copy for forward that a compiled checkpoint does not make again: that would be of the state after the call.

    Of two equal things, for Inductor leaves out what it takes for a copy.
    """
    mode = get_proxy_mode()
    known = 0 if mode is None else len(mode.tracer.graph.nodes)
    copy = torch.maximum(state.detach(), state.detach())
    if mode is not None:
        for node in itertools.islice(mode.tracer.graph.nodes, known, None):
            if node.target is torch.ops.aten.maximum.default:
                node.meta["recompute"] = checkpoint.CheckpointPolicy.MUST_SAVE
    return copy


@torch.library.impl(_LIBRARY, "met", "CompositeExplicitAutograd")
def _copies(state: Sequence[Tensor]) -> State:
    """Copies for backward that stand before what is made of them, as an op that nothing looks into.

    What forward left of a state and the state itself are one memory there; Inductor takes them for two, and would read
    the one after it has written the other.
    """
    return [t.detach().clone() for t in state]


def _traced(state: Sequence[Tensor]) -> bool:
    """By a compiler, which says so, or (in a backward) by the kind of its tensors."""
    known = torch.compiler.is_compiling() or any(type(t) not in PLAIN and not hasattr(t, "placements") for t in state)
    return known and not torch.compiler.is_exporting()


def accumulate(
    ctx, state: Sequence[Tensor], run: Callable[[State], State], seen: Sequence[Tensor] = ()
) -> None:  # fmt: skip
    """``run(state) -> new state`` in a backward: a second one through the same graph starts where the first one did.

    ctx: the backward's; None: nothing moves. seen: the state, where a transform has to know what is read.
    """
    before = seen or getattr(ctx, "accumulated_from", None) or (_met if _traced(state) else _copies)(state)
    after = run(list(before))
    if ctx is None or getattr(ctx, "accumulated_from", None) is not None:
        return
    if not torch.compiler.is_compiling():
        ctx.accumulated_from = before
    move(state, after, first=True)


def _recomputed(calls: Iterable[Call], run: Callable[[State], tuple[Tensor, State]]) -> Call | None:
    candidates = list(calls)
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    with torch.no_grad():  # nothing is saved, so the recomputation's own tensors keep their places
        for call in candidates:
            if all(map(torch.equal, run(call.before)[1], call.after)):
                return call
    return None


def finite(pair: Sequence[Tensor] | Tensor) -> Tensor:
    """In which channels two statistics (C,) are sound: what is not finite, or saturates, would stay for ever."""
    return (pair[0] + pair[1]).abs() < math.sqrt(torch.finfo(pair[0].dtype).max) / 1024


def sound(new: Sequence[Tensor], old: Sequence[Tensor], found: Sequence[Tensor] | None = None) -> State:
    """Two statistics (C,) after a call, but ``old`` in the channels where what was found (None: they) is not sound."""
    kept = finite(new if found is None else found)
    return [torch.where(kept, a, b) for a, b in zip(new, old, strict=True)]


def move(state: Sequence[Tensor], after: State, first: bool = False) -> None:
    """The state becomes ``after``, in place; ``first`` as in :func:`write`."""
    for t, new in zip(state, after, strict=True):
        write(t, new, first)


def count(counter: Tensor, more: Tensor | int = 1) -> None:
    """counter += more"""
    if torch._C._are_functorch_transforms_active():
        write(counter, counter + more)
    else:
        counter.add_(more)


def write(target: Tensor, value: Tensor, first: bool = False) -> None:
    """target = value, from inside a transform too, as torch.nn.BatchNorm writes its statistics there.

    Under vmap there is a value for each call. With one target for all that is an error; with ``first`` it gets the
    first one.
    """
    if not inside_transform(value):
        target.copy_(value.detach())
        return
    (to, own), (found, many) = _peeled(target), _peeled(value)
    if many is not None and own is None:
        if not first:
            raise RuntimeError(
                "a running state must be mapped over together with the input of vmap, got one state for all: give "
                "vmap one for each (torch.func.stack_module_state), or call eval() first"
            )
        found, many = found.select(many, 0), None
    with temporarily_clear_interpreter_stack(), torch.no_grad():
        to = to if own is None else to.movedim(own, 0)
        to.copy_(found if many is None else found.movedim(many, 0))


def inside_transform(value: Tensor) -> bool:
    """Whether value is one that a transform made, which torch's in-place ops may refuse to write."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or _C.is_legacy_batchedtensor(value)


def _peeled(t: Tensor) -> tuple[Tensor, int | None]:
    """The tensor below the wrappers of transforms, and its dim that vmap maps over."""
    if _C.is_legacy_batchedtensor(t):  # autograd.grad(is_grads_batched=True) makes such
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        return torch._remove_batch_dim(t, level, 1, 0), 0  # type: ignore[attr-defined]
    batch = None
    while _C.is_functorch_wrapped_tensor(t):
        dim = _C.maybe_get_bdim(t)
        batch = dim if dim >= 0 else batch
        t = _C.get_unwrapped(t)
    return t, batch
