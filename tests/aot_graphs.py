"""A backend of torch.compile that runs what AOTAutograd makes of a function, and tells whose ops are left."""

from collections.abc import Callable
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

OURS = {"normkernels", "normkernels_C"}


class Graphs:
    """``frame_count``: how often Dynamo compiled; ``namespaces`` of the ops of each graph, forward or backward."""

    def __init__(self) -> None:
        self.frame_count, self.namespaces = 0, list[set[str]]()
        self._aot: Any = aot_autograd(fw_compiler=self._look)

    def __call__(self, module: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.frame_count += 1
        return self._aot(module, inputs)

    def _look(self, module: torch.fx.GraphModule, _: list[Any]) -> Callable[..., Any]:
        graphs = [m.graph for m in module.modules() if isinstance(m, torch.fx.GraphModule)]
        ops = [op for graph in graphs for node in graph.nodes for op in (node.target, *node.args)]
        self.namespaces.append({op.namespace for op in ops if isinstance(op, torch._ops.OpOverload)})
        return make_boxed_func(module.forward)

    @property
    def ours(self) -> bool:
        """Whether an op of ours is left in any of them."""
        return any(found & OURS for found in self.namespaces)
