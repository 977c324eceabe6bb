"""A module's own forward as a graph, with everything that it was traced under."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

CONSTANT = (bool, int, float, str, type(None), torch.dtype)


class Leaves(fx.Tracer):
    """Calls of other modules stay calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class Traced:
    """A graph of so many tensors; ``read``: plain attributes that it asks for; ``constants``: its other arguments."""

    def __init__(self, graph: fx.Graph, required: int, read: dict[str, Any], constants: dict[str, Any]) -> None:
        self.required: int = required
        self.graph: fx.Graph = graph
        self.read: dict[str, Any] = read
        self.constants: dict[str, Any] = constants
        self.kinds: dict[str, type] = {}
        self.function: Callable[..., Any] | None = None

    def rely_on(self, module: nn.Module, child: str) -> None:
        """What was made of the graph is true for a child of this class."""
        self.kinds[child] = type(module.get_submodule(child))

    def fits(self, module: nn.Module, constants: dict[str, Any]) -> bool:
        """Every call asks: loops and dicts take a third of what generators and ``get_submodule`` do."""
        if constants != self.constants:
            return False
        for name, value in self.read.items():
            if getattr(module, name) != value:
                return False
        for path, kind in self.kinds.items():
            child: Any = module
            for name in path.split("."):
                child = child._modules.get(name)
            if type(child) is not kind:
                return False
        return True

    def __call__(self, module: nn.Module, *args: Any) -> Any:
        if self.function is None:
            self.function = self._function()
        return self.function(module, *args)

    def _function(self) -> Callable[..., Any]:
        code = self.graph.python_code("self")
        space: dict[str, Any] = dict(code.globals)
        exec(code.src, space)
        return space["forward"]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "function": None}


def parameters(module: nn.Module) -> list[inspect.Parameter]:
    """Of its class's forward, without self."""
    return list(inspect.signature(type(module).forward).parameters.values())[1:]


def defaults(module: nn.Module) -> dict[str, Any]:
    return {p.name: p.default for p in parameters(module) if p.default is not p.empty}


def trace(module: nn.Module, constants: dict[str, Any]) -> Traced | None:
    """None where torch.fx cannot, or where something else than plain constants and tensors may steer the forward."""
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters(module)) or not _plain(constants):
        return None
    cls, read = type(module), {}

    class Watched(cls):  # type: ignore[misc, valid-type]
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name in super().__getattribute__("__dict__") and not name.startswith("_"):
                read[name] = value
            return value

    try:
        module.__class__ = Watched
        graph = Leaves().trace(module, constants)
    except Exception:  # it raises whatever the forward raises when it is given proxies
        return None
    finally:
        module.__class__ = cls
    return Traced(graph, len(parameters(module)) - len(constants), read, constants) if _plain(read) else None


def _plain(values: dict[str, Any]) -> bool:
    return all(isinstance(v, CONSTANT) for v in values.values())


def bound(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """All arguments of a call, and those of them that are no tensors."""
    given = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    given.apply_defaults()
    values = dict(list(given.arguments.items())[1:])
    return list(values.values()), {k: v for k, v in values.items() if not isinstance(v, Tensor | fx.Proxy)}
