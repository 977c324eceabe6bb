"""nk.convert and norms of other libraries that add a residual first, and return the sum where it is asked for."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import normkernels as nk
from tests import peers
from tests.common import OPS, need
from tests.test_convert import used

torch.manual_seed(0)
N, HALF, BRAIN, FLOAT, DOUBLE = 12, torch.float16, torch.bfloat16, torch.float32, torch.float64
PEERS = [peers.RMSNormAfterSum, peers.LayerNormAfterSum]
every_peer = pytest.mark.parametrize("kind", PEERS, ids=lambda k: k.__name__)
CALLS: list[dict[str, Any]] = [
    {"prenorm": prenorm, "residual_in_fp32": wide} for prenorm in (False, True) for wide in (False, True)
]


def pair(kind) -> tuple[nn.Module, nn.Module]:
    """A peer and a converted copy."""
    before = used(kind(N))
    ours = copy.deepcopy(before)
    (change,) = nk.convert(ours).changed
    assert change.after in ("normkernels.AfterSumRMSNorm", "normkernels.AfterSumLayerNorm")
    return before, ours


def results(norm: nn.Module, tensors: list[Tensor], call: dict[str, Any]) -> list[Tensor]:
    """All outputs, then gradients of inputs and parameters through all of them."""
    given = [t.detach().requires_grad_() for t in tensors]
    found = norm(*given, **call)
    assert isinstance(found, tuple) is call.get("prenorm", False)
    outputs = found if isinstance(found, tuple) else (found,)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in outputs]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, [*given, *norm.parameters()], grads)]


def same(before: nn.Module, ours: nn.Module, tensors: list[Tensor], call: dict[str, Any]) -> None:
    want, found = results(before, tensors, call), results(ours, tensors, call)
    assert [t.dtype for t in found] == [t.dtype for t in want]
    near = {} if all(t.dtype == FLOAT for t in want) else {"rtol": 2**-6, "atol": 2**-5}
    torch.testing.assert_close(found, want, **near)


@every_peer
@pytest.mark.parametrize("call", [{}, *CALLS], ids=str)
def test_outputs_and_gradients(kind, call):
    before, ours = pair(kind)
    x, r = torch.randn(2, 3, N), torch.randn(2, 3, N)
    for tensors in ([x], [x, r]):
        same(before, ours, tensors, call)


@every_peer
@pytest.mark.parametrize("weights", [FLOAT, BRAIN, HALF], ids=str)
@pytest.mark.parametrize("residual", [FLOAT, BRAIN, None], ids=str)
@pytest.mark.parametrize("input", [DOUBLE, FLOAT, BRAIN], ids=str)
def test_dtypes_are_those_of_the_peer(kind, input, residual, weights):
    """Those that ours does not know too: they go the way that they went before."""
    before, ours = (m.to(weights) for m in pair(kind))
    tensors = [torch.randn(4, N).to(dtype) for dtype in (input, residual) if dtype is not None]
    for call in CALLS:
        same(before, ours, tensors, call)


@every_peer
def test_it_is_one_kernel(kind, monkeypatch):
    need(OPS["rms_norm"], "native", "cpu")
    _, ours = pair(kind)
    monkeypatch.setattr(peers.RMSNormAfterSum, "forward", None)
    x, r = torch.randn(2, 4, N)
    y, s = ours(x, r, True)
    assert torch.equal(s, x + r)
    assert torch.equal(ours(x, residual=r, residual_in_fp32=False), y)
    y, s = ours(x=x, prenorm=True)
    assert s is x


@every_peer
def test_copies_and_the_way_back(kind):
    before, ours = pair(kind)
    x, r = torch.randn(2, 4, N)
    for made in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(made(x, r, True), ours(x, r, True), rtol=0, atol=0)
    nk.revert(ours)
    assert type(ours) is kind
    assert vars(ours).keys() == vars(before).keys()
    torch.testing.assert_close(ours(x, r, True), before(x, r, True), rtol=0, atol=0)


@every_peer
def test_calls_that_are_wrong(kind):
    """What was an error is the same one."""
    _, ours = pair(kind)
    x, r = torch.randn(2, 4, N)
    for args, named in (((), {}), ((x, r), {"residual": r}), ((x, r), {"gate": r}), ((x, r, True, False, 1), {})):
        with pytest.raises(TypeError, match=r"forward\(\) "):
            ours(*args, **named)
    before = used(kind(N))
    ours.load_state_dict(before.state_dict())
    torch.testing.assert_close(ours(x, r[:1], True), before(x, r[:1], True))  # it is broadcast there


def test_parametrized_and_listened_to():
    before = parametrizations.weight_norm(used(peers.RMSNormAfterSum(N)), "weight", dim=0)
    ours, heard = copy.deepcopy(before), []
    ours.register_forward_hook(lambda *_: heard.append(1))
    assert nk.convert(ours).changed
    x, r = torch.randn(2, 4, N)
    for call in CALLS:
        torch.testing.assert_close(ours(x, r, **call), before(x, r, **call))
    assert len(heard) == len(CALLS)


class Block(nn.Module):
    """A step of a transformer: what comes before is added by the norm, and the sum goes on."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.act = norm, nn.SiLU()

    def forward(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        y, s = self.norm(x, r, True)
        return self.act(self.norm(x + y)), s


@every_peer
def test_traced_compiled_and_fused(kind):
    """The norm of x + y is called with one tensor, and nothing is fused with what ours would take second."""
    before = Block(pair(kind)[0])
    ours = copy.deepcopy(before)
    assert not nk.convert(ours).fused
    x, r = torch.randn(2, 3, N), torch.randn(2, 3, N)
    traced = torch.fx.symbolic_trace(ours)
    assert sum(n.op == "call_module" for n in traced.graph.nodes) == 3
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for run in (ours, traced, compiled):
        torch.testing.assert_close(run(x, r), before(x, r))


@pytest.mark.parametrize("kind", [peers.RMSNormOfInput, peers.RMSNormWidens])
def test_what_is_left(kind):
    report = nk.convert(model := nn.ModuleList([kind(N)]))
    assert type(model[0]) is kind
    assert "no norm of ours with a gate or a residual" in report.left[0].text
