"""How torch.fx sees our modules: as leaves, like those of torch.nn."""

from typing import Any

from torch.fx import Proxy


def leaf(module: Any, *args) -> Any:
    """The call of a module, one argument of which is a proxy, as one node of the trace."""
    tracer: Any = next(a for a in args if isinstance(a, Proxy)).tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), args, {})
