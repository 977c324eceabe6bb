"""nk.convert and nk.revert: the same objects, numbers and state, one class for another."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import normkernels as nk
from normkernels.conversion.twins import TWINS
from tests import peers

SHAPES = {
    "BatchNorm": (4, 6),
    "InstanceNorm": (4, 6, 5),
    "GroupNorm": (4, 6, 5),
    "LayerNorm": (4, 6),
    "RMSNorm": (4, 6),
}
ARGS = {
    nn.GroupNorm: [(3, 6), (3, 6, 1e-3, False)],
    nn.LayerNorm: [(6,), ((6,), 1e-3, True, False), (6, 1e-3, False)],
    nn.RMSNorm: [(6,), (6, 1e-3, False)],
}
EVERY = [(kind, args) for kind in TWINS for args in ARGS.get(kind, [(6,), (6, 1e-3, None, True, True), (6, 1e-3, 0.3)])]
EVERY = [e for e in EVERY if not (e[0].__name__.startswith("Instance") and None in e[1])]
every_twin = pytest.mark.parametrize(("kind", "args"), EVERY, ids=lambda v: getattr(v, "__name__", str(v)))


IMAGE, ROWS = (3, 6, 4, 5), (3, 4, 6)
PEERS = [
    (peers.LlamaRMSNorm(6), ROWS, nk.RMSNorm, {}),
    (peers.GemmaRMSNorm(6), ROWS, nk.RMSNorm, {"weight_offset": 1.0}),
    (peers.BiasedRMSNorm(6), ROWS, nk.RMSNorm, {}),
    (peers.NarrowRMSNorm(6), ROWS, nk.RMSNorm, {}),
    (peers.FP32LayerNorm(6), ROWS, nk.LayerNorm, {}),
    (peers.PermutedLayerNorm(6), IMAGE, nk.LayerNorm2d, {"memory_format": torch.channels_last}),
    (peers.ChannelsFirstLayerNorm(6), IMAGE, nk.LayerNorm2d, {"memory_format": torch.preserve_format}),
    (peers.BatchNormAct2d(6), IMAGE, nk.BatchNorm2d, {"activation": "silu"}),
    (peers.GroupNormAct(3, 6), IMAGE, nk.GroupNorm, {"activation": None}),
    (peers.FrozenBatchNorm2d(6), IMAGE, nk.BatchNorm2d, {"frozen_statistics": True}),
    (peers.FrozenNormByNumber(6), IMAGE, nk.BatchNorm2d, {"frozen_statistics": True}),
]


def used(module: nn.Module) -> nn.Module:
    """With numbers that are not ones and zeros."""
    with torch.no_grad():
        for t in [*module.parameters(), *module.buffers()]:
            if t.is_floating_point():
                t.uniform_(0.5, 1.5)
    return module


def run(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradients and the state after."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    y = module(x)
    (y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape).sin()).sum().backward()
    grads = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    return [y.detach(), x.grad, *grads, *(b.clone() for b in module.buffers())]  # type: ignore[list-item]


def same(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    for training in (True, False):
        torch.testing.assert_close(run(one.train(training), x), run(other.train(training), x))


@every_twin
def test_every_norm_of_torch_becomes_its_twin_and_back(kind, args, capsys):
    torch.manual_seed(0)
    rank = {"2d": 2, "3d": 3}.get(kind.__name__[-2:], 0)
    name = next(n for n in SHAPES if kind.__name__.startswith(n))
    x = torch.randn((*SHAPES[name][:2], *(3,) * rank) if rank else SHAPES[name])
    model = used(nn.Sequential(kind(*args)))
    before, norm = copy.deepcopy(model), model[0]
    held = [id(t) for t in [*model.parameters(), *model.buffers()]]
    assert nk.convert(model).changed == [("0", f"torch.{kind.__name__}", f"normkernels.{kind.__name__}")]
    assert type(model[0]) is TWINS[kind]
    assert model[0] is norm
    assert [id(t) for t in [*model.parameters(), *model.buffers()]] == held
    same(before, model, x)
    nk.revert(model)
    assert type(norm) is kind
    assert repr(model) == repr(before)
    assert vars(norm).keys() == vars(before[0]).keys()
    same(before, model, x)
    assert "changed" in capsys.readouterr().out


@pytest.mark.parametrize(("peer", "shape", "kind", "shown"), PEERS, ids=lambda v: getattr(type(v), "__name__", ""))
def test_norms_of_other_libraries(peer, shape, kind, shown):
    before, model = used(copy.deepcopy(peer)), nn.Sequential()
    model.append(copy.deepcopy(before))
    attributes, buffers = vars(model[0]).keys(), list(before.state_dict())
    nk.convert(model, fuse=False)
    assert isinstance(model[0], kind)
    assert {k: getattr(model[0], k) for k in shown} == shown
    assert set(buffers) <= set(model[0].state_dict()) <= {*buffers, "num_batches_tracked"}
    x = torch.randn(shape)
    for training in (True, False):
        y, z = before.train(training)(x), model.train(training)(x)
        torch.testing.assert_close(z, y)
        assert z.stride() == y.stride()
    nk.revert(model)
    assert type(model[0]) is type(peer)
    assert vars(model[0]).keys() == attributes
    assert list(model[0].state_dict()) == buffers
    torch.testing.assert_close(model(x), before(x))


def test_output_dtype_of_a_peer_is_kept():
    x = torch.randn(ROWS).bfloat16()
    for peer, dtype in ((peers.LlamaRMSNorm(6), torch.float32), (peers.GemmaRMSNorm(6), torch.bfloat16)):
        nk.convert(peer)
        assert isinstance(peer, nk.RMSNorm)
        assert peer(x).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("weight", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", [peers.LlamaRMSNorm, peers.NarrowRMSNorm])
def test_output_dtype_of_an_rms_norm_follows_its_weight(kind, weight, dtype):
    """By the wider of the two, or by a weight of 16 bits alone; what float16 cannot hold is normalised before it."""
    before = used(kind(6)).to(weight)
    ours, x = copy.deepcopy(before), (torch.randn(ROWS) * (1e3 if dtype == torch.float16 else 1e5)).to(dtype)
    nk.convert(ours)
    assert isinstance(ours, nk.RMSNorm)
    y, z = before(x), ours(x)
    assert z.dtype == y.dtype
    torch.testing.assert_close(z.float(), y.float(), rtol=2**-6, atol=1e-6)


def test_what_computes_something_else_is_left():
    lazy, other, span = nn.LazyBatchNorm1d(), peers.OtherRMSNorm(6), nn.SyncBatchNorm(6)
    model = nn.ModuleList([lazy, other, span, nk.LayerNormLSTM(3, 4)])
    report = nk.convert(model)
    assert not report.changed
    assert [n.name for n in report.left] == ["0", "1", "2"]
    assert "none of ours" in report.left[1].text
    assert type(model[1]) is peers.OtherRMSNorm


def test_hooks_parametrizations_and_the_optimizer_stay():
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    parametrizations.weight_norm(model[1], "weight", dim=0)
    heard, optimizer = [], torch.optim.SGD(model.parameters(), 0.1)
    model[1].register_forward_hook(lambda *_: heard.append(1))
    before = copy.deepcopy(model)
    nk.convert(model)
    assert isinstance(model[1], nk.LayerNorm)
    assert model[1].weight.grad_fn is not None
    same(before, model, torch.randn(4, 6))
    optimizer.step()
    assert heard
    assert not torch.equal(model[0].weight, before[0].weight)
    nk.revert(model)
    assert isinstance(model[1], nn.LayerNorm)
    assert not isinstance(model[1], nk.LayerNorm)
    torch.nn.utils.parametrize.remove_parametrizations(model[1], "weight")
    assert type(model[1]) is nn.LayerNorm


def test_copies_pickles_and_shared_layers():
    norm = used(nn.LayerNorm(6))
    model = nn.Sequential(norm, nn.Linear(6, 6), norm)
    assert len(nk.convert(model).changed) == 1
    assert model[0] is model[2]
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = torch.randn(4, 6)
    for made in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(made(x), model(x))
        nk.revert(made)
        assert type(made[0]) is nn.LayerNorm
        assert made[0] is made[2]


def test_sixteen_bits_and_back():
    model = nn.Sequential(nn.BatchNorm1d(6)).to(torch.bfloat16)
    nk.convert(model)
    assert model[0].running_mean.dtype == torch.float32
    assert model[0].weight.dtype == torch.bfloat16
    nk.revert(model)
    assert {t.dtype for t in model.state_dict().values()} == {torch.bfloat16, torch.int64}


def test_ours_revert_without_having_been_converted():
    model = nn.Sequential(nk.GroupNorm(2, 6), nk.OnlineNorm1d(6), nk.LayerNorm(6, activation="gelu"))
    report = nk.revert(model)
    assert [type(m) for m in model] == [nn.GroupNorm, nk.OnlineNorm1d, nk.LayerNorm]
    assert [n.text for n in report.left] == ["torch.nn has no such norm", "torch.nn's has no activation='gelu'"]
    assert not nk.revert(model).changed


def test_a_model_that_is_a_norm_and_wrong_arguments():
    norm = nn.LayerNorm(6)
    nk.convert(norm)
    assert type(norm) is nk.LayerNorm
    with pytest.raises(ValueError, match=r"convert: to must be None or one of batch_renorm, online, .* got 'onlin'"):
        nk.convert(norm, to="onlin")
    with pytest.raises(ValueError, match=r"revert: model must be a torch.nn.Module, got int"):
        nk.revert(3)


def test_kernel_mapping_says_which_devices():
    assert set(nk.kernel_mapping(("cuda",))["RMSNorm"]) == {"cuda"}
    with pytest.raises(ValueError, match="kernel_mapping: devices must be of 'cpu', 'cuda', got 'tpu'"):
        nk.kernel_mapping(("tpu",))
