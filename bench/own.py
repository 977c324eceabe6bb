"""``--with module:function``: a function of one's own in the race, called by the names of torch's arguments."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable

import torch

from .providers import Task


def load(spec: str) -> Callable:
    """The function; a sentence and the end where there is none."""
    module, _, name = spec.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(f"bench: --with {spec}: {error}; it is given as module:function") from None
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise SystemExit(f"bench: --with {spec} must be a function, got {type(found).__name__}")
    return found


def fitted(function: Callable, spec: str, task: Task) -> Callable:
    """The function as the race calls it: of what an op gives it gets what it has a name for.

    What it has no name for may only be absent or torch's default; what it asks for beside must be given.
    """
    given = task.small.call | dict(task.small.present())
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return function
    names = {p.name for p in parameters}
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    unmet = [name for name in needed if name not in given]
    if unmet:
        raise SystemExit(f"bench: {spec} asks for {', '.join(unmet)}; {task.op} gives {', '.join(given)}")
    ignored = [k for k in given if k not in names and (isinstance(given[k], torch.Tensor) or k == "activation")]
    lacking = [k for k in ignored if given[k] is not None]
    if lacking:
        raise SystemExit(f"bench: {spec} takes no {', '.join(lacking)}, which {task.op} has")
    return lambda **arguments: function(**{k: v for k, v in arguments.items() if k in names})
