"""What torch.compile keeps on disk is found again by the next process, with our layers in the graph as with torch's."""

import os
import subprocess
import sys

import pytest
import torch
from layers import Layer, every_kind
from torch._functorch._aot_autograd.autograd_cache import check_cacheable

from normkernels.ops import _whole

PROGRAM = """
import torch, normkernels as nk
from normkernels.ops import _whole
from torch._dynamo.utils import counters

_whole._key = lambda: {key!r}
torch.compile(lambda x: x + 1)(torch.ones(4))
counters.clear()
model = torch.nn.Sequential(nk.RMSNorm(8), nk.BatchNorm1d(8, activation="relu"), nk.LayerNorm(8, backend={backend!r}))
torch.compile(model)(torch.ones(4, 8, requires_grad=True)).sum().backward()
print(*[counters["aot_autograd"]["autograd_cache_" + kind] for kind in ("bypass", "miss", "hit")])
"""


@every_kind
def test_no_graph_is_one_that_the_cache_refuses(layer: Layer):
    torch._dynamo.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        graphs.append(graph)
        return graph

    module = layer.used(dtype=torch.float32)
    torch.compile(module, backend=backend, fullgraph=True)(layer.input())
    for graph in graphs:
        check_cacheable(graph)


def test_the_next_process_finds_it(tmp_path):
    """And a call that is another one is another graph, as is that of other sources, whatever was compiled before."""

    def run(backend: str | None, key: str = "sources") -> str:
        there = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        command = [sys.executable, "-c", PROGRAM.format(backend=backend, key=key)]
        return subprocess.run(command, env=there, capture_output=True, text=True, check=True).stdout.strip()

    assert [run(None), run(None), run("reference")] == ["0 1 0", "0 0 1", "0 1 0"]
    assert run(None, "others") == "0 1 0"


def test_each_has_a_name_of_its_own():
    """Which leads to it: a cache tells graphs apart by what they print."""
    for name, found in _whole._WHOLE.items():
        assert getattr(_whole, name) is found
        assert found.__name__ == name
    with pytest.raises(AttributeError, match="no_norm"):
        _whole.no_norm  # noqa: B018
