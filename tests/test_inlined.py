"""Compiled for the CPU without gradients, rows and given statistics are torch's functions, which Inductor fuses."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import normkernels as nk

F = nk.functional
CALLS = {
    "layer": lambda x, **more: F.layer_norm(x, 64, torch.ones(64), torch.zeros(64), **more),
    "layer, added": lambda x, **more: F.layer_norm(x, 64, residual=x, activation="gelu", **more)[0],
    "rms": lambda x, **more: F.rms_norm(x, 64, torch.ones(64), weight_offset=1.0, **more),
    "batch": lambda x, **more: F.batch_norm(x, torch.ones(64), torch.ones(64), activation="relu", **more),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def ours(counter: CompileCounterWithBackend) -> bool:
    """Whether a graph holds an op of ours."""
    graphs = [m.graph for made in counter.graphs for m in made.modules() if isinstance(m, torch.fx.GraphModule)]
    return any("normkernels" in str(node.target) for graph in graphs for node in graph.nodes)


@every_call
def test_what_is_inlined(call):
    """One graph for all batch sizes, without our ops; with them where the backend is named, or a gradient is taken."""
    for grad, more, held in ((False, {}, False), (False, {"backend": "native"}, True), (True, {}, True)):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(lambda x, more=more: call(x, **more), backend=counter, fullgraph=True)
        for samples in (5, 6, 9):
            x = torch.randn(samples, 64, requires_grad=grad)
            torch._dynamo.mark_dynamic(x, 0)
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(compiled(x), call(x))
        assert (counter.frame_count, ours(counter)) == (1, held)


@pytest.mark.parametrize(("mean", "deviation"), [(1e4, 1e-2), (1e6, 1.0)])
def test_rows_far_from_0(mean, deviation):
    """As exact as our op, where torch's function, given such rows, rounds the mean."""
    x = mean + deviation * torch.randn(8, 64)

    def error(y: Tensor) -> float:
        return (y - torch.nn.functional.layer_norm(x.double(), (64,))).abs().max().item()

    torch._dynamo.reset()
    with torch.no_grad():
        found = torch.compile(lambda x: F.layer_norm(x, 64), fullgraph=True)(x)
    assert error(found) <= 2 * error(F.layer_norm(x, 64)) + 1e-6
