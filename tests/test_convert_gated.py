"""nk.convert and norms of other libraries that are called with a gate."""

import copy
import pickle
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import normkernels as nk
from tests import peers
from tests.common import OPS, need
from tests.test_convert import used

torch.manual_seed(0)
N = 12
PEERS = [(peers.NormThenGate, "gate"), (peers.LayerNormThenGate, "z"), (peers.RMSNormFusedGate, "g")]
every_peer = pytest.mark.parametrize(("kind", "gate"), PEERS, ids=lambda v: getattr(v, "__name__", ""))


def pair(kind) -> tuple[nn.Module, nn.Module]:
    """A peer and a converted copy."""
    before = used(kind(N))
    ours = copy.deepcopy(before)
    (change,) = nk.convert(ours).changed
    assert change.after in ("normkernels.GatedRMSNorm", "normkernels.GatedLayerNorm")
    return before, ours


def results(norm: nn.Module, x: Tensor, gate: Tensor) -> list[Tensor]:
    """Output, then gradients of input, gate and parameters."""
    given = [t.detach().requires_grad_() for t in (x, gate)]
    y = norm(*given)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [*given, *norm.parameters()], dy)]


@every_peer
def test_outputs_gradients_and_the_way_back(kind, gate):
    before, ours = pair(kind)
    assert isinstance(ours, nk.RMSNorm | nk.LayerNorm)
    x, g = torch.randn(2, 3, N), torch.randn(2, 3, N)
    torch.testing.assert_close(results(ours, x, g), results(before, x, g))
    assert torch.equal(ours(x, **{gate: g}), ours(x, g))
    for made in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(made(x, g), ours(x, g))
    nk.revert(ours)
    assert type(ours) is kind
    assert vars(ours).keys() == vars(before).keys()
    assert torch.equal(ours(x, g), before(x, g))


@every_peer
@pytest.mark.parametrize("dtypes", [(torch.bfloat16,) * 3, (torch.bfloat16, torch.bfloat16, torch.float32)], ids=str)
def test_dtypes_are_those_of_the_peer(kind, gate, dtypes):
    """Of input, gate and parameters, and where the gate is wider than input."""
    before, ours = (m.to(dtypes[2]) for m in pair(kind))
    for wide in (dtypes[1], torch.float32):
        x, g = torch.randn(4, N).to(dtypes[0]), torch.randn(4, N).to(wide)
        for y, z in zip(results(before, x, g), results(ours, x, g), strict=True):
            assert y.dtype == z.dtype
            torch.testing.assert_close(z, y, rtol=2**-6, atol=2**-6)


@every_peer
def test_it_is_one_kernel(kind, gate, monkeypatch):
    need(OPS["rms_norm"], "native", "cpu")
    _, ours = pair(kind)
    monkeypatch.setattr(kind, "forward", None)
    assert ours(torch.randn(4, N), torch.randn(4, N)).shape == (4, N)


def test_calls_that_are_not_of_two_tensors_go_the_old_way():
    x, g = torch.randn(2, 3, N), torch.randn(2, 3, N)
    before, ours = pair(peers.RMSNormFusedGate)
    torch.testing.assert_close(ours(x, g, residual=g, prenorm=True), before(x, g, residual=g, prenorm=True))
    torch.testing.assert_close(ours(x, g, g), before(x, g, g))
    assert torch.equal(ours(x, g[:, :1]), before(x, g[:, :1]))
    before, ours = pair(peers.LayerNormThenGate)
    assert torch.equal(ours(x), before(x))
    assert torch.equal(ours(x, z=None), before(x))
    before, ours = pair(peers.NormThenGate)
    with pytest.raises(TypeError, match=r"NormThenGate\.forward\(\) missing 1 required positional argument: 'gate'"):
        ours(x)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        ours(x, z=g)


def test_parametrized_and_listened_to():
    before = parametrizations.weight_norm(used(peers.RMSNormFusedGate(N)), "weight", dim=0)
    ours, heard = copy.deepcopy(before), []
    ours.register_forward_hook(lambda *_: heard.append(1))
    assert nk.convert(ours).changed
    x, g = torch.randn(4, N), torch.randn(4, N)
    torch.testing.assert_close(ours(x, g), before(x, g))
    torch.testing.assert_close(ours(x, g, g, True), before(x, g, g, True))
    assert heard == [1, 1]
    ours.parametrizations.weight.original1.data.neg_()
    torch.testing.assert_close(ours(x, g, g, True), nk.revert(ours) and ours(x, g, g, True))


class Block(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return self.norm(x, g)


@every_peer
def test_traced_and_compiled(kind, gate):
    before, ours = (Block(m) for m in pair(kind))
    x, g = torch.randn(2, 3, N), torch.randn(2, 3, N)
    traced = torch.fx.symbolic_trace(ours)
    assert [n.op for n in traced.graph.nodes] == ["placeholder", "placeholder", "call_module", "output"]
    torch.testing.assert_close(traced(x, g), before(x, g))
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(results(compiled, x, g), results(before, x, g))


class Unfused(Block):
    """A norm whose gate may be left out, where one of ours would take over what is around it."""

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        s = x + g
        return nn.functional.silu(self.norm(s)) + s


def test_nothing_is_fused_with_one_that_is_called_otherwise():
    before = nn.ModuleList([Unfused(used(peers.OpenGate(N))), nn.Sequential(used(peers.OpenGate(N)), nn.SiLU())])
    ours = copy.deepcopy(before)
    report = nk.convert(ours)
    assert (len(report.changed), report.fused) == (2, [])
    x, g = torch.randn(2, 4, N)
    torch.testing.assert_close(ours[0](x, g), before[0](x, g))
    torch.testing.assert_close(ours[1](x), before[1](x))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (peers.GatedRMSNorm, "its gate comes before the norm, ours after it"),
        (peers.GroupedRMSNormGate, "it norms parts of a row, ours whole rows"),
        (peers.RMSNormElsewhere, "called with two tensors it raises ValueError"),
    ],
)
def test_what_is_left_and_why(kind, why):
    report = nk.convert(model := nn.ModuleList([kind(N)]))
    assert type(model[0]) is kind
    assert [n.text for n in report.left] == [why]


REAL = [
    ("qwen3_next", "Qwen3NextRMSNormGated", (), None), ("olmo_hybrid", "OlmoHybridRMSNormGated", (), None),
    ("kimi_linear", "KimiLinearRMSNormGated", (), None), ("falcon_h1", "FalconH1RMSNormGated", (), None),
    ("falcon_h1", "FalconH1RMSNormGated", (1e-6, 2), "parts of a row"),
    ("mamba2", "MambaRMSNormGated", (N,), "gate comes before"),
    ("zamba2", "Zamba2RMSNormGated", (N // 2,), "it norms parts of a row, .*; its gate comes before"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "name", "args", "why"), REAL, ids=lambda v: str(v))
def test_those_of_transformers(model, name, args, why):
    pytest.importorskip("transformers")
    modeling = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    before = used(getattr(modeling, name)(N, *args))
    report = nk.convert(ours := copy.deepcopy(before))
    if why:
        assert type(ours) is type(before)
        assert re.search(why, report.left[0].text)
        return
    for dtype in (torch.float32, torch.bfloat16):
        x, g = (torch.randn(2, 3, N).to(dtype) for _ in range(2))
        y, z = before(x, g), ours(x, g)
        assert y.dtype == z.dtype
        torch.testing.assert_close(z, y, **({} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 2**-6}))
    nk.revert(ours)
    assert type(ours) is type(before)
