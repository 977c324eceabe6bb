"""Arguments against what a signature says of them: in constructors, and of a call that failed.

A call that runs pays nothing for this: what it was given is looked at when torch has refused it.
"""

import functools
import inspect
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

import torch

from normkernels._checks import ArgumentError, fail
from normkernels._messages import meant, shown

Public = TypeVar("Public", bound=Callable[..., Any])
LEAST: dict[str, int] = dict.fromkeys(("eps", "ls_eps", "num_features", "num_channels", "normalized_shape", "shape"), 0)
LEAST |= dict.fromkeys(("num_groups", "in_features", "out_features", "in_channels", "out_channels", "groups"), 1)
LEAST |= dict.fromkeys(("kernel_size", "stride", "dilation"), 1)
TORCHS = ("input_size", "hidden_size", "bias", "batch_first")  # torch.nn says what is wrong with these
FORWARD = ("residual", "skip")  # what a layer may be given with its input


def _whole(value: Any) -> bool:
    try:
        return not isinstance(value, bool | torch.Tensor) and operator.index(value) is not None
    except (TypeError, ValueError, RuntimeError):
        return False


def _number(value: Any) -> bool:
    try:
        return not isinstance(value, bool | str) and float(value) is not None
    except (TypeError, ValueError, RuntimeError):
        return False


# kind -> (whether a value is one, what it is called); a string is one of some names, which are listed where it is used
KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_whole, "an int"),
    float: (_number, "a number"),
    bool: (lambda v: not isinstance(v, str | float | Sequence | torch.Tensor), "True or False"),
    type(None): (lambda v: v is None, "None"),
    torch.Tensor: (lambda v: isinstance(v, torch.Tensor), "a torch.Tensor"),
    torch.nn.Module: (lambda v: isinstance(v, torch.nn.Module), "a torch.nn.Module"),
    torch.dtype: (lambda v: isinstance(v, torch.dtype), "a torch.dtype"),
}


def _one_of(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _sequence_of(kind: Any) -> Any:
    """What a sequence is made of; None for what is none."""
    if kind is torch.Size:
        return int
    origin = get_origin(kind)
    return get_args(kind)[0] if isinstance(origin, type) and issubclass(origin, Sequence) else None


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated kind; what is annotated otherwise is checked where it is used."""
    for k in _one_of(kind):
        element = _sequence_of(k)
        if k not in KINDS and element is None:
            return True
        if k in KINDS and KINDS[k][0](value):
            return True
        if element is not None and isinstance(value, Sequence) and not isinstance(value, str):
            return all(fits(v, element) for v in value)
    return False


def described(kind: Any) -> str:
    """``None or a number``."""
    words, sequences = [], []
    for k in _one_of(kind):
        element = _sequence_of(k)
        if element is not None:
            sequences = [f"a sequence of {KINDS[element][1].split()[-1]}s"]
        else:
            words.append(KINDS[k][1])
    return " or ".join([*words, *sequences])


def check(name: str, signature: inspect.Signature, given: Mapping[str, Any]) -> None:
    """Each argument must be what it is annotated as, and not too small."""
    for argument, value in given.items():
        parameter, least = signature.parameters[argument], LEAST.get(argument)
        kind = parameter.annotation
        if (
            kind is parameter.empty
            or argument in TORCHS
            or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ):
            continue
        if not fits(value, kind):
            fail(name, argument, f"be {described(kind)}", shown(value))
        values = value if isinstance(value, Sequence) else (value,)
        if least is not None and value is not None and not all(v >= least for v in values):
            fail(name, argument, f"be at least {least}" if least else "be positive or 0", shown(value))


def bound(name: str, signature: inspect.Signature, args: tuple, kwargs: dict[str, Any], elsewhere: str = "") -> Any:
    """The arguments by name; a TypeError that names the one that was meant where there is none of a name.

    ``elsewhere``: what is said of one that another call takes.
    """
    unknown = [key for key in kwargs if key not in signature.parameters]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        key = unknown[0]
        hint = elsewhere or meant(key, signature.parameters) or f"it takes {', '.join(_names(signature))}"
        raise TypeError(f"{name}: there is no argument {key!r} ({hint})")
    return signature.bind(*args, **kwargs).arguments


def _names(signature: inspect.Signature) -> list[str]:
    return [name for name in signature.parameters if name != "self"]


def constructor(init: Public) -> Public:
    """The ``__init__`` of a layer, which first looks at what it was given."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self, *args, **kwargs):
        if not torch.compiler.is_compiling():
            name = type(self).__name__
            check(name, signature, bound(name, signature, (self, *args), kwargs, _at_the_call(self, kwargs)))
        init(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def _at_the_call(layer: torch.nn.Module, kwargs: dict[str, Any]) -> str:
    """Where a residual or skip goes, if one was given to a constructor."""
    taken = [key for key in FORWARD if key in inspect.signature(type(layer).forward).parameters]
    return f"it is given to the call: layer(input, {taken[0]}=...)" if taken and kwargs.keys() & {*FORWARD} else ""


def refuse(layer: torch.nn.Module, unknown: Mapping[str, Any]) -> NoReturn:
    """A TypeError: the call of a layer was given what it does not take."""
    name, key = type(layer).__name__, next(iter(unknown))
    hint = f"it is given to the constructor: {name}(..., {key}=...)"
    signature = inspect.signature(type(layer).forward)
    known = signature.replace(parameters=[p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD])
    bound(f"{name}.forward", known, (), dict(unknown), hint if key in inspect.signature(type(layer)).parameters else "")
    raise AssertionError(f"{key} is known")


def explained(error: Exception, public: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Exception:
    """The error of a call that failed: what is wrong with an argument, if that is what it was."""
    if isinstance(error, ArgumentError):
        return error
    name, signature = public.__name__, inspect.signature(public)
    try:
        check(name, signature, bound(name, signature, args, kwargs))
    except (ArgumentError, TypeError) as found:
        return found
    return error
