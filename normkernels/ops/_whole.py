"""Public functions as Dynamo sees them: it puts each whole into its graph, and AOTAutograd looks inside.

So Dynamo guards their arguments instead of all the Python below. What it compiled is found again in another process:
AOTAutograd's cache takes a graph that holds them, for each has a name of its own and a key that says what it is now.
"""

import functools
import hashlib
import importlib
from collections.abc import Callable
from typing import Any

import torch

from normkernels import _place
from normkernels._arguments import explained
from normkernels._backends import triton_version
from normkernels._checks import ArgumentError

_WHOLE: dict[str, Callable[..., Any]] = {}  # by the names that graphs have for them


def whole(public: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    """``inner``, which runs a public function, as a graph holds it: what it depends on besides are arguments too."""

    def run(_request, _closed_forms, *args, **kwargs):
        try:
            return inner(*args, **kwargs)
        except (TypeError, AttributeError, ArgumentError) as error:
            better = explained(error, public, args, kwargs)
            raise (_unsupported(better) if torch.compiler.is_compiling() else better) from None

    run.__name__ = run.__qualname__ = public.__name__
    _WHOLE[public.__name__] = run
    return run


def __getattr__(name: str) -> Callable[..., Any]:
    """A graph that is printed names them by this module."""
    if name in _WHOLE:
        return _WHOLE[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def allowed() -> bool:
    """Whether Dynamo may put them into a graph as they are; it learns of them when it first meets one.

    A program that is exported holds ops alone. Before torch 2.13 what runs below did not know that it is compiled.
    """
    if torch.compiler.is_exporting() or not hasattr(torch.compiler, "_compile_session_context"):
        return False
    from torch._inductor import config  # which is imported, for it compiles

    for function in _WHOLE.values():
        torch.compiler.allow_in_graph(function)
    cacheable = getattr(config, "unsafe_marked_cacheable_functions", None)
    ours = dict.fromkeys((f"{__name__}.{name}" for name in _WHOLE), _key())
    if cacheable is not None and not ours.items() <= cacheable.items():
        # a new dict: of one that it has read before torch does not see a change, and takes what other sources made
        config.unsafe_marked_cacheable_functions = cacheable | ours
    return True


allowed._dynamo_marked_constant = True  # Dynamo calls it; torch.compiler's decorator would import all of Dynamo


@functools.cache
def _key() -> str:
    """Of all that decides what AOTAutograd finds inside: the sources, and which backends there are."""
    found = hashlib.sha256(triton_version().encode())
    for file in sorted(_place.FOLDER.rglob("*.py")):
        found.update(file.read_bytes())
    try:
        found.update(str(importlib.import_module("normkernels._C").build_info()).encode())
    except ImportError as error:
        found.update(str(error).encode())
    return found.hexdigest()


def _unsupported(error: Exception) -> Exception:
    """What Dynamo takes for a call that it cannot make: it leaves it to Python, which says what is wrong."""
    from torch._dynamo.exc import Unsupported  # which is imported, for it compiles

    return Unsupported(str(error))
