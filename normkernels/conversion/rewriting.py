"""A forward written anew around fused norms, where torch.fx can trace it."""

import functools
import operator
import types
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from normkernels.conversion import activations
from normkernels.conversion.fused import with_residual, with_skip
from normkernels.conversion.tracing import Traced, bound, defaults, trace
from normkernels.modules._channels import ChannelExtras

ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add)
_PROGRAM = "_rewritten_forward"  # on a module: what was traced
IN_PLACE = ("iadd", "isub", "imul", "itruediv")


class Fusion(NamedTuple):
    """What a norm does more, said in words."""

    norm: str
    how: str


def rewrite(module: nn.Module, candidates: set[str]) -> list[Fusion]:
    """Fuse what can be fused in the forward of ``module`` itself, and give it the new one."""
    kind = type(module)
    if _PROGRAM in vars(module) or "forward" in vars(module) or not _copied_plainly(module, kind):
        return []
    traced = trace(module, defaults(module))
    fusions = [] if traced is None else _find(traced, module, candidates)
    if traced is not None and fusions:
        vars(module)[_PROGRAM] = traced
        module.__class__ = _rewritten(kind)
    return fusions


def undo(module: nn.Module) -> None:
    vars(module).pop(_PROGRAM, None)
    if "_rewritten_from" in vars(type(module)):
        module.__class__ = type(module)._rewritten_from  # type: ignore[assignment]


def _copied_plainly(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is copied and pickled as most are, by its class, which torch has not made for this module alone."""
    usual = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    return usual and not isinstance(module, fx.GraphModule) and not parametrize.is_parametrized(module)


@functools.cache
def _rewritten(kind: Any) -> type[nn.Module]:
    """``kind``, whose modules run programs; a call that one was not traced for, or of a compiler, goes the old way.

    A class, for torch.compile guards all of torch.nn.Module's call where a forward lies in the module itself.
    """

    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        program = None if torch.compiler.is_compiling() else vars(self).get(_PROGRAM)
        if program is None:
            return kind.forward(self, *args, **kwargs)
        if kwargs or len(args) != program.required or not all(isinstance(a, Tensor) for a in args):
            given, constants = bound(self, args, kwargs)
        else:
            given, constants = [*args, *program.constants.values()], program.constants
        return program(self, *given) if program.fits(self, constants) else kind.forward(self, *args, **kwargs)

    before: Any = kind.forward
    plain = isinstance(before, types.FunctionType) and not (before.__defaults__ or before.__closure__)
    if plain and not before.__kwdefaults__:
        vars(forward).setdefault("_torchdynamo_inline", before)  # what Dynamo looks into: no guard leads there

    def reduced(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        return _restored, (kind,), self.__getstate__()  # type: ignore[attr-defined]

    names = {k: getattr(kind, k) for k in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (kind,), names | {"forward": forward, "__reduce_ex__": reduced, "_rewritten_from": kind})


def _restored(kind: type[nn.Module]) -> nn.Module:
    """An empty one, for copies and pickles."""
    new = _rewritten(kind)
    return new.__new__(new)


def _find(traced: Traced, module: nn.Module, candidates: set[str]) -> list[Fusion]:
    """What the norms of these names, children of the module, can take over; the graph is rewritten so."""
    for node in [n for n in traced.graph.nodes if n.op == "call_module" and _identity(n, module)]:
        traced.rely_on(module, str(node.target))
        _replace(node, node.all_input_nodes[0])
    calls = [n for n in traced.graph.nodes if n.op == "call_module"]
    found = []
    for node in calls:
        name = str(node.target)
        once = sum(n.target == name for n in calls) == 1
        if name not in candidates or not once or node.kwargs or len(node.args) != 1:
            continue
        channels = isinstance(module.get_submodule(name), ChannelExtras)
        how = [h for h in (_fuse_channels if channels else _fuse_rows)(node, traced, module) if h]
        if how:
            traced.rely_on(module, name)
            found.append(Fusion(name, "with " + " and ".join(how)))
    return found


def _fuse_channels(node: fx.Node, traced: Traced, module: nn.Module) -> tuple[str, str]:
    """act(norm(x) + skip) -> with_skip(norm, x, skip, act), called where the sum was; (what was done, in words)."""
    user, skip = _only_user(node), None
    terms = [] if user is None else _terms(user)
    if user is not None and len(terms) == 2 and not _changed_between(node.args[0], node, user, module):
        skip = next(t for t in terms if t is not node)
    last = node if skip is None or user is None else user
    after = _take_activation(last, traced, module)
    if skip is None and after is None:
        return "", ""
    _call(with_skip, last, node, skip, after)
    if last is not node:
        node.graph.erase_node(node)
    return "its skip" if skip is not None else "", after[0] if after else ""


def _fuse_rows(node: fx.Node, traced: Traced, module: nn.Module) -> tuple[str, str]:
    """act(norm(a + b)) -> with_residual(norm, a, b, act), which returns the sum too, called where that was."""
    total: Any = node.args[0]
    terms = _terms(total) if isinstance(total, fx.Node) else []
    if any(_in_place(u, module) for u in total.users):
        terms = []
    after = _take_activation(node, traced, module)
    if terms:
        pair = _call(with_residual, total, node, terms[1], after, x=terms[0])
        with node.graph.inserting_after(pair):
            y, s = (node.graph.call_function(operator.getitem, (pair, i)) for i in (0, 1))
        pair.replace_all_uses_with(s, delete_user_cb=lambda user: user not in (y, s))
        _replace(node, y)
    elif after:
        _call(with_residual, node, node, None, after)
    return "its residual" if terms else "", after[0] if after else ""


def _call(function: Any, place: fx.Node, norm: fx.Node, other: fx.Node | None, after: Any, x: Any = None) -> fx.Node:
    """function(norm, x, other, activation, slope) in the place of a node, and for all who used that."""
    with place.graph.inserting_before(place):
        module = place.graph.get_attr(str(norm.target))
        args = (module, norm.args[0] if x is None else x, other, *(after or (None, 0.01)))
        new = place.graph.call_function(function, args)
    _replace(place, new)
    return new


def _replace(old: fx.Node, new: fx.Node) -> None:
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)


def _take_activation(node: fx.Node, traced: Traced, module: nn.Module) -> tuple[str, float] | None:
    """(name, slope) of what alone follows, which is no longer there; None if that is no activation."""
    user = _only_user(node)
    if user is None or user.args[:1] != (node,):
        return None
    if user.op == "call_module":
        found = activations.of_module(module.get_submodule(str(user.target)))
        if found:
            traced.rely_on(module, str(user.target))
    else:
        found = activations.of_call(user.op, user.target, user.args[1:], user.kwargs)
    if found:
        _replace(user, node)
    return found


def _identity(node: fx.Node, module: nn.Module) -> bool:
    child = module.get_submodule(str(node.target))
    return type(child) is nn.Identity and not activations.has_hooks(child) and len(node.all_input_nodes) == 1


def _terms(node: fx.Node) -> list[fx.Node]:
    """The two tensors of an addition; nothing else, and not one of them twice."""
    adds = node.op == "call_function" and node.target in ADDITIONS
    adds = adds or (node.op == "call_method" and node.target in ("add", "add_"))
    terms = [a for a in node.args if isinstance(a, fx.Node)]
    return terms if adds and not node.kwargs and len(terms) == len(set(terms)) == len(node.args) == 2 else []


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _changed_between(value: Any, first: fx.Node, last: fx.Node, module: nn.Module) -> bool:
    """Whether a node between these two might change the value: it takes it, or writes into what may be a view of it."""
    order = list(first.graph.nodes)
    between = order[order.index(first) + 1 : order.index(last)]
    return any(value in n.all_input_nodes or _in_place(n, module) for n in between)


def _in_place(node: fx.Node, module: nn.Module) -> bool:
    """Whether it may write into what it is given: add_, +=, relu(inplace=True)."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or name in IN_PLACE or bool(node.kwargs.get("inplace"))
