"""What the normalisers that carry a state share: how it moves, stays, is copied, frozen, and what gradients see."""

import copy
import io
import pickle
import sys
from functools import partial

import pytest
import torch
from common import STATEFUL, every_stateful_op, every_target, need

import normkernels as nk
from normkernels.cases._channels import last

SHAPES = {"1d": (6, 12), "2d": (5, 12, 3, 4), "3d": (3, 12, 2, 3, 4)}
# so that decays, bounds and memories all show within a few steps
SETTINGS = {
    "OnlineNorm": {"alpha_fwd": 0.9, "alpha_bkw": 0.9},
    "BatchRenorm": {"momentum": 0.3, "warmup_steps": 1, "r_ramp_steps": 3, "d_ramp_steps": 2},
    "StreamingNorm": {"kappa": (0.6, 0.4, 0.8, 0.2), "beta": (0.5, 0.2, 0.3)},
}
STEMS = {"OnlineNorm": "online_norm", "BatchRenorm": "batch_renorm", "StreamingNorm": "streaming_norm"}
NAMES = [kind + rank for kind in SETTINGS for rank in SHAPES]
every_kind = pytest.mark.parametrize("kind", SETTINGS)
every_name = pytest.mark.parametrize("name", NAMES)
LAYOUTS = pytest.mark.parametrize("layout", [torch.Tensor.contiguous, last], ids=["contiguous", "channels_last"])


def numbers(shape, seed=0, dtype=torch.float64):
    return (1.5 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def new(name, **switches):
    """A layer with a random weight and bias."""
    module = getattr(nk, name)(12, **({"dtype": torch.float64} | SETTINGS[name[:-2]] | switches))
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(1 + 0.3 * torch.randn(p.shape))
    return module


def used(name, **switches):
    """The same after a few steps of training, and an input for it."""
    module = new(name, **switches)
    dtype = module.weight.dtype
    for i in range(3):
        step(module, numbers(SHAPES[name[-2:]], i, dtype))
        getattr(module, "weights_changed", lambda: None)()
    step(module, numbers(SHAPES[name[-2:]], 3, dtype))
    return module, numbers(SHAPES[name[-2:]], 4, dtype)


def cotangent(y):
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)


def step(module, x, forward=None):
    """The output and every gradient of a step of training."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = (module if forward is None else forward)(x)
    y.backward(cotangent(y))
    return [y.detach(), *(t.grad for t in (x, *module.parameters()) if t.requires_grad)]


def state(module):
    return {k: t.clone() for k, t in module.named_buffers()}


def same(a, b):
    """Bit for bit."""
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# how the state stays, moves, and starts again


@every_name
def test_what_moves_the_state(name):
    """Training calls and their backwards do, under no_grad too; eval() and frozen statistics do not."""
    module, x = used(name)
    before = state(module)
    step(module.eval(), x)
    same(state(module), before)
    step(module.train().freeze(), x)
    same(state(module), before)
    module.unfreeze()
    with torch.no_grad():
        module(x)
    moved = state(module)
    assert any(not torch.equal(moved[k], before[k]) for k in before)
    kept = {"epsilon_1", "epsilon_y"} & set(before)  # what only a backward moves
    same({k: moved[k] for k in kept}, {k: before[k] for k in kept})
    step(module, x)
    after = state(module)
    assert all(not torch.equal(after[k], moved[k]) for k in set(before) - {"long_term"})


@every_name
def test_starting_again(name):
    module, _ = used(name)
    fresh = getattr(nk, name)(12, dtype=torch.float64, **SETTINGS[name[:-2]])
    weight = module.weight.detach().clone()
    module.reset_running_stats()
    same(state(module), state(fresh))
    same(module.weight.detach(), weight)
    module.reset_parameters()
    same(dict(module.state_dict()), dict(fresh.state_dict()))
    assert list(module.state_dict())[:2] == ["weight", "bias"]


@every_kind
def test_construction(kind):
    """Parameters on request; the repr says what was set; a meta layer becomes a real one."""
    name = kind + "2d"
    assert list(dict(getattr(nk, name)(12, affine=False).named_parameters())) == []
    assert list(dict(getattr(nk, name)(12, bias=False).named_parameters())) == ["weight"]
    module = new(name, activation="leaky_relu", slope=0.3, backend="reference", eps=1e-3)
    for text in ("12, ", "eps=0.001", "affine=True", "activation='leaky_relu'", "slope=0.3", "backend='reference'"):
        assert text in repr(module)
    assert all(f"{k}={v}" in repr(module) for k, v in SETTINGS[kind].items())
    meta = getattr(nk, name)(12, device="meta")
    assert all(t.is_meta for t in meta.state_dict().values())
    meta.to_empty(device="cpu").reset_parameters()
    same(dict(meta.state_dict()), dict(getattr(nk, name)(12).state_dict()))


@every_name
def test_freezing(name):
    """Frozen statistics are those of eval(), whatever train() says; unfreeze() lets them go on."""
    (module, x), (twin, _) = used(name), used(name)
    want = step(twin.eval(), x)[0]
    module.freeze().train()
    assert "frozen_statistics=True" in repr(module)
    assert not any(p.requires_grad for p in module.parameters())
    same(step(module, x)[0], want)
    same(state(module), state(twin))
    module.unfreeze()
    same(step(module, x), step(twin.train(), x))
    same(state(module), state(twin))


@every_name
def test_a_wrong_rank(name):
    ranks = {"1d": r"2 or 3", "2d": "4", "3d": "5"}[name[-2:]]
    with pytest.raises(
        ValueError, match=rf"^{name}: input must have {ranks} dimensions \(N, C, \*\), got shape \(12,\)$"
    ):
        new(name)(torch.ones(12, dtype=torch.float64))


@every_name
def test_a_failed_call_changes_nothing(name, monkeypatch):
    """Wrong skip, dtype or channels; a backend that cannot run."""
    module, x = used(name)
    before = state(module)
    for bad in ((x, x[:-1]), (x.half(),), (x.int(),), (x[:, :-1],), (x[0],)):
        with pytest.raises(ValueError, match=f"^({STEMS[name[:-2]]}|{name}): "):
            module(*bad)
    backends = sys.modules["normkernels.backends"]
    monkeypatch.setattr(backends, "unusable", lambda backend, op, device: "away")
    backends.resolve.cache_clear()
    module.backend = "native"
    with pytest.raises(RuntimeError, match="cannot run here: away"):
        module(x)
    backends.resolve.cache_clear()
    same(state(module), before)


@every_name
def test_an_empty_batch(name):
    """Runs, and moves nothing; neither do images without pixels."""
    module, x = used(name)
    before = state(module)
    for empty in (x[:0], x[..., :0] if x.dim() > 2 else x[:0]):
        y, dx, dweight, dbias = step(module, empty)
        assert y.shape == dx.shape == empty.shape
        assert not dweight.any()
        assert not dbias.any()
    same(state(module), before)


# copies


@every_name
def test_copies(name):
    """deepcopy, pickle, torch.save and a state_dict: the copy goes on as the original does, with a state of its own."""
    module, x = used(name)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = new(name)
    loaded.load_state_dict(module.state_dict())
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False), loaded]
    before = state(module)
    want = step(copy.deepcopy(module), x), step(copy.deepcopy(module).eval(), x)
    for twin in copies:
        assert repr(twin) == repr(module)
        same(step(copy.deepcopy(twin).eval(), x), want[1])
        same(step(twin, x), want[0])
        same(state(module), before)
        assert any(not torch.equal(t, before[k]) for k, t in state(twin).items())
    for twin in copies[1:]:
        same(state(twin), state(copies[0]))


def test_buffers_keep_their_place():
    """References to buffers, as DistributedDataParallel has them, stay those of the layer."""
    for name in NAMES:
        module, x = used(name)
        before = [t.data_ptr() for t in module.buffers()]
        step(module, x)
        assert [t.data_ptr() for t in module.buffers()] == before


# inference


@pytest.mark.parametrize("shape", [(6, 12), (6, 12, 12), (6, 12, 7), (5, 12, 3, 4), (3, 12, 2, 3, 4)], ids=str)
@every_kind
def test_inference(kind, shape):
    """Constants of each channel in every rank, (N, C, L) with L == C included; the gradient is the derivative."""
    name = f"{kind}{max(1, len(shape) - 2)}d"
    module, _ = used(name)
    x, view = numbers(shape, 8).requires_grad_(), [1, -1, *[1] * (len(shape) - 2)]
    mean = module.running_mean
    scale = {
        "OnlineNorm": lambda: torch.sqrt(module.running_var + module.eps),
        "BatchRenorm": lambda: module.running_std,
        "StreamingNorm": lambda: module.running_scale,
    }[kind]()
    z = (x - mean.view(view)) / scale.view(view) * module.weight.view(view) + module.bias.view(view)
    if kind == "OnlineNorm":
        z = z * torch.rsqrt(z.square().mean(tuple(range(1, len(shape))), keepdim=True) + module.ls_eps)
    dy = numbers(shape, 9)
    want = [z.detach(), *torch.autograd.grad(z, [x, module.weight, module.bias], dy)]
    y = module.eval()(x)
    torch.testing.assert_close([y.detach(), *torch.autograd.grad(y, [x, module.weight, module.bias], dy)], want)


# dtypes and layouts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@LAYOUTS
@every_kind
def test_sixteen_bits(kind, layout, dtype):
    """16-bit input: its dtype and layout come out, in training and after it; the state is that of float32 input."""
    module, x = used(kind + "2d", dtype=torch.float32)
    twin, x = copy.deepcopy(module), layout(x).to(dtype)
    dy = numbers(x.shape, 1).to(dtype)
    for m, t in ((module, x), (twin, x.float())):
        t.requires_grad_()
        y = m(t)
        assert (y.dtype, y.stride()) == (t.dtype, x.stride())
        y.backward(dy.to(y.dtype))
        assert t.grad.dtype == t.dtype
    torch.testing.assert_close(x.grad, t.grad.to(dtype))
    torch.testing.assert_close(state(module), state(twin))
    y = module.eval()(x)
    assert (y.dtype, y.stride()) == (dtype, x.stride())


CASTS = {
    "half": torch.nn.Module.half,
    "bfloat16": torch.nn.Module.bfloat16,
    "to": partial(torch.nn.Module.to, dtype=torch.float16),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
@every_kind
def test_a_model_in_sixteen_bits_keeps_its_state(kind, cast):
    """In float32, bit for bit, where small steps still add up; double() widens it."""
    module, x = used(kind + "2d", dtype=torch.float32)
    before = state(module)
    cast(module)
    assert module.weight.dtype.itemsize == 2
    same(state(module), before)
    assert module(x.to(module.weight.dtype)).dtype == module.weight.dtype
    assert getattr(nk, kind + "2d")(12, dtype=torch.bfloat16).running_mean.dtype == torch.float32
    module.double()
    assert all(t.dtype in (torch.float64, torch.int64) for t in module.buffers())


@every_kind
def test_float64_is_float64(kind):
    """Nothing on the way is rounded to float32."""
    name = kind + "2d"
    (module, x), (twin, _) = used(name), used(name, backend="reference")
    for _ in range(2):
        torch.testing.assert_close(step(module, x), step(twin, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state(module), state(twin), rtol=1e-12, atol=1e-12)


@every_kind
def test_autocast(kind):
    module, x = used(kind + "2d", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == torch.float32
        assert module(x.bfloat16()).dtype == torch.bfloat16


# gradients


@every_name
def test_create_graph(name):
    """The same gradients, the same move of the state, and no buffer that needs a gradient afterwards."""
    (module, x), (twin, _) = used(name), used(name)
    y, wanted = module(x.requires_grad_()), [x, *module.parameters()]
    grads = torch.autograd.grad(y, wanted, cotangent(y), create_graph=True)
    torch.testing.assert_close(list(grads), step(twin, x)[1:])
    torch.testing.assert_close(state(module), state(twin))
    assert not any(t.requires_grad or t.grad_fn for t in module.buffers())


@every_name
def test_a_second_backward(name):
    """Through a graph that was kept: the same gradients, and the state does not move again."""
    (module, x), (twin, _) = used(name), used(name)
    y, wanted = module(x.requires_grad_()), [x, *module.parameters()]
    first = torch.autograd.grad(y, wanted, cotangent(y), retain_graph=True)
    same(list(first), step(twin, x)[1:])
    same(torch.autograd.grad(y, wanted, cotangent(y), retain_graph=True), first)
    same(state(module), state(twin))
    step(module, numbers(x.shape, 11))  # another call in between
    before = state(module)
    same(torch.autograd.grad(y, wanted, cotangent(y)), first)
    same(state(module), before)


@every_name
def test_backward_sees_the_call_as_it_was(name):
    """Calls between a forward and its backward change nothing in what its gradients say about y."""
    (module, x), (twin, _) = used(name), used(name)
    y = module(x.requires_grad_())
    want = step(twin, x)[1:]
    with torch.no_grad():
        module(numbers(x.shape, 11))
    same(list(torch.autograd.grad(y, [x, *module.parameters()], cotangent(y))), want)


# every backend, on the functions


@every_stateful_op
@every_target
def test_backends_move_the_state_alike(backend, device, op):
    """Step after step from the first state; the reference in float64 says how."""
    need(op, backend, device)
    kind = next(k for k, stem in STEMS.items() if stem == op.stem)
    wide = new(kind + "2d", backend="reference")
    ours = new(kind + "2d", backend=backend, dtype=torch.float32)
    ours.load_state_dict(wide.state_dict())
    ours = ours.to(device)
    for i in range(4):
        x = numbers(SHAPES["2d"], i).float()
        step(wide, x.double())
        step(ours, x.to(device))
        if i == 1 and kind == "StreamingNorm":
            wide.weights_changed()
            ours.weights_changed()
    got = {k: t.cpu().double() for k, t in state(ours).items()}
    torch.testing.assert_close(got, {k: t.double() for k, t in state(wide).items()}, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("k", [4.0, 0.25])
@every_target
@pytest.mark.parametrize("op", [op for op in STATEFUL if op.stem != "online_norm"], ids=str)
def test_scale_and_shift(op, backend, device, k):
    """x -> k x + c with a state to match and eps k^2: the same y, and dx smaller by k."""
    need(op, backend, device)
    sample = next(s for s in op.samples if s.id == "3x20x5x7-eval")
    terms = [(k, 7.0), (k, 0.0), (1 / k, 0.0), (1 / k, 0.0)]  # of each row: factor and shift
    rows = {"running_mean": [(k, 7.0)], "running_std": [(k, 0.0)], "long_term": terms, "short_term": terms}
    found = []
    for scaled in (False, True):
        tensors = {name: t.clone().to(device) for name, t in sample.present().items()}
        if scaled:
            tensors["input"] = k * tensors["input"] + 7
            for name in rows.keys() & tensors.keys():
                factor, shift = torch.tensor(rows[name], dtype=torch.float64, device=device).T[..., None]
                tensors[name] = (tensors[name] * factor + shift).view(tensors[name].shape)
        x = tensors["input"].requires_grad_()
        arguments = sample.call | {"training": True, "eps": sample.call["eps"] * (k * k if scaled else 1)}
        y = op.function(**tensors, **arguments, backend=backend)
        (dx,) = torch.autograd.grad(y, x, sample.cotangents[0].to(device))
        found.append([y.detach(), dx * (k if scaled else 1)])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
