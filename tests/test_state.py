"""What the normalisers that carry a state share: how it moves, stays, starts again and is frozen."""

import copy
import io
import pickle

import pytest
import torch
from stateful_layers import NAMES, SETTINGS, STEMS, every_kind, every_name, new, same, state, step, used

import normkernels as nk
from normkernels import _backends

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
    monkeypatch.setattr(_backends, "unusable", lambda backend, op, device: "away")
    _backends.resolve.cache_clear()
    module.backend = "native"
    with pytest.raises(RuntimeError, match="cannot run here: away"):
        module(x)
    _backends.resolve.cache_clear()
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
