"""A backend of torch.compile that runs what AOTAutograd makes of a function, and tells whether ops of ours are left."""

from collections.abc import Callable
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd


class Graphs:
    """``frame_count``: how often Dynamo compiled; ``ours``: whether a graph, forward or backward, holds an op of ours."""

    def __init__(self) -> None:
        self.frame_count, self.ours = 0, False
        self._aot: Any = aot_autograd(fw_compiler=self._look)

    def __call__(self, module: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.frame_count += 1
        return self._aot(module, inputs)

    def _look(self, module: torch.fx.GraphModule, _: list[Any]) -> Callable[..., Any]:
        graphs = [m.graph for m in module.modules() if isinstance(m, torch.fx.GraphModule)]
        self.ours |= any("normkernels" in f"{node.target} {node.args}" for graph in graphs for node in graph.nodes)
        return make_boxed_func(module.forward)
