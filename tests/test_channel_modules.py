"""BatchNorm, GroupNorm and InstanceNorm against their torch.nn twins: construction, state, steps."""

import copy
import inspect
import pickle

import pytest
import torch
from channel_twins import SHAPES, every_tracking_module, pair, same_state, step
from common import every_layout

import normkernels as nk

every_module = pytest.mark.parametrize("name", SHAPES)
# the constructor switches that torch has, alone and where they meet
SWITCHES = {
    "default": {}, "affine": {"affine": True}, "not-affine": {"affine": False}, "eps": {"eps": 0.1},
    "no-bias": {"affine": True, "bias": False}, "momentum": {"momentum": 0.7, "track_running_stats": True},
    "average": {"momentum": None, "track_running_stats": True}, "tracks": {"track_running_stats": True},
    "tracks-not": {"track_running_stats": False}, "all": {"affine": True, "track_running_stats": True},
    "float64": {"dtype": torch.float64}, "meta": {"device": "meta"},
}  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES)
@every_module
def test_construction(name, switch):
    """Same parameters, buffers, values and repr; torch's results in training and after it."""
    if not SWITCHES[switch].keys() <= inspect.signature(getattr(torch.nn, name)).parameters.keys():
        pytest.skip(f"torch.nn.{name} has no {switch}")
    args = SHAPES[name][0]
    new, twin = (getattr(space, name)(*args, **SWITCHES[switch]) for space in (nk, torch.nn))
    assert repr(new) == repr(twin)
    assert isinstance(new, type(twin))
    assert list(new.state_dict()) == list(twin.state_dict())
    for (k, a), b in zip(new.state_dict().items(), twin.state_dict().values(), strict=True):
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device), k
        assert a.is_meta or torch.equal(a, b), k
    if switch != "meta":
        ours, theirs, x = pair(name, **SWITCHES[switch])
        for train in (True, True, False, True, False):
            torch.testing.assert_close(step(ours.train(train), x), step(theirs.train(train), x))
            same_state(ours, theirs)
            x = x * 1.5 - 1


@every_module
def test_same_signature(name):
    """torch's arguments, order and defaults; the extras are keyword-only."""
    ours, theirs = (inspect.signature(getattr(space, name)).parameters for space in (nk, torch.nn))
    extras = {"activation", "slope", "backend"}
    assert {k: (p.kind, p.default) for k, p in ours.items() if k not in extras} == {
        k: (p.kind, p.default) for k, p in theirs.items()
    }
    assert [k for k in ours if k not in extras] == list(theirs)
    assert all(ours[k].kind == inspect.Parameter.KEYWORD_ONLY for k in extras)


@every_module
def test_state_dict_moves_both_ways(name):
    switches = {} if name == "GroupNorm" else {"affine": True, "track_running_stats": True}
    (a, b, x), (a2, b2, _) = pair(name, **switches), pair(name, **switches)
    for module in (a, b):
        step(module, x)
    a2.load_state_dict(b.state_dict())
    b2.load_state_dict(a.state_dict())
    same_state(a2, b2)
    for train in (False, True):
        torch.testing.assert_close(step(a2.train(train), x), step(b2.train(train), x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_layout
@every_tracking_module
def test_sixteen_bit_steps(name, layout, dtype):
    """16-bit input beside float32 parameters and statistics: torch's statistics, input's dtype and layout."""
    ours, theirs, x = pair(name, affine=True, track_running_stats=True)
    for _ in range(3):
        x = layout(x.flip(0) * 1.5 - 1).to(dtype)
        y = ours(x)
        theirs(x.float())
        assert (y.dtype, y.stride()) == (dtype, x.stride())
        same_state(ours, theirs)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x.float()).to(dtype))


@every_module
def test_dtypes(name):
    """.to(bfloat16) moves all; autocast leaves input's dtype."""
    module, _, x = pair(name)
    assert copy.deepcopy(module).to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == torch.float32
        assert module(x.bfloat16()).dtype == torch.bfloat16


@every_module
def test_extras(name):
    """Activation, slope and skip do what is written after torch's module; they show in the repr."""
    extras = {"activation": "leaky_relu", "slope": 0.3, "backend": "reference"}
    _, theirs, x = pair(name)
    ours = getattr(nk, name)(*SHAPES[name][0], **extras)
    ours.load_state_dict(theirs.state_dict())
    assert all(f"{k}={v!r}" in repr(ours) for k, v in extras.items())
    skip = torch.randn_like(x)
    torch.testing.assert_close(ours(x, skip), torch.nn.functional.leaky_relu(theirs(x) + skip, 0.3))
    torch.testing.assert_close(ours(x), torch.nn.functional.leaky_relu(theirs(x), 0.3))


@every_module
def test_copies(name):
    """deepcopy and pickle keep parameters, statistics, extras and freezing."""
    module, _, x = pair(name)
    module.activation = "silu"
    step(module, x)
    if name.startswith("BatchNorm"):
        module.freeze()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module)
        assert torch.equal(twin(x), module(x))
        same_state(twin, module)


@every_module
def test_bad_extras(name):
    args = SHAPES[name][0]
    with pytest.raises(ValueError, match=f"{name}: activation must be None or one of .*, got 'swish'"):
        getattr(nk, name)(*args, activation="swish")
    with pytest.raises(ValueError, match=f"{name}: backend must be one of .*, got 'cuda'"):
        getattr(nk, name)(*args, backend="cuda")


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("tracks", [False, True])
def test_instance_norm_without_a_batch(dims, tracks):
    ours, theirs, x = pair(f"InstanceNorm{dims}d", affine=True, track_running_stats=tracks)
    torch.testing.assert_close(step(ours, x[0]), step(theirs, x[0]))
    same_state(ours, theirs)
    skip = torch.randn_like(x[0])
    torch.testing.assert_close(ours(x[0], skip), theirs(x[0]) + skip)


@every_layout
@pytest.mark.parametrize("name", ["BatchNorm2d", "GroupNorm", "InstanceNorm2d"])
def test_compiled_steps(name, layout):
    """A compiled module trains as it does in eager mode, running statistics included; inlined ones round otherwise."""
    switches = {} if name == "GroupNorm" else {"affine": True, "track_running_stats": True}
    ours, _, x = pair(name, **switches)
    twin, x = copy.deepcopy(ours), layout(x)
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for train in (True, True, False):
        for module in (ours, twin):
            module.train(train)
        torch.testing.assert_close(step(ours, x, compiled), step(twin, x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-5)
