"""The modules against their torch.nn twins: construction, state, copies, dtypes, switches, training."""

import copy
import inspect
import pickle

import pytest
import torch
import torch.nn.functional as F
from common import randomised
from torch.utils.checkpoint import checkpoint

import normkernels as nk

# ours, the twin in torch.nn, arguments, the shape of an input
TWINS = [
    pytest.param(nk.LayerNorm, torch.nn.LayerNorm, (12,), (5, 12), id="LayerNorm"),
    pytest.param(nk.LayerNorm, torch.nn.LayerNorm, ((3, 4),), (5, 3, 4), id="LayerNorm-two-dims"),
    pytest.param(nk.RMSNorm, torch.nn.RMSNorm, (12,), (5, 12), id="RMSNorm"),
    pytest.param(nk.RMSNorm, torch.nn.RMSNorm, ((3, 4),), (5, 3, 4), id="RMSNorm-two-dims"),
]
MODULES = [
    pytest.param(nk.LayerNorm, (5, 12), id="LayerNorm"),
    pytest.param(nk.LayerNorm2d, (2, 12, 3, 4), id="LayerNorm2d"),
    pytest.param(nk.RMSNorm, (5, 12), id="RMSNorm"),
]
every_twin = pytest.mark.parametrize(("ours", "twin", "args", "shape"), TWINS)
every_module = pytest.mark.parametrize(("ours", "shape"), MODULES)

# every constructor switch that torch has
SWITCHES = [
    {},
    {"elementwise_affine": False},
    {"bias": False},
    {"eps": 0.1},
    {"dtype": torch.float64},
    {"device": "meta"},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: next(iter(s), "default"))
@every_twin
def test_construction(ours, twin, args, shape, switch):
    """Same parameters, same values, same repr, for every switch."""
    if not switch.keys() <= inspect.signature(twin).parameters.keys():
        pytest.skip(f"torch.nn.{twin.__name__} has no {next(iter(switch))}")
    a, b = ours(*args, **switch), twin(*args, **switch)
    assert repr(a) == repr(b)
    assert isinstance(a, twin)
    assert dict(a.named_parameters()).keys() == dict(b.named_parameters()).keys()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert (p.shape, p.dtype, p.device) == (q.shape, q.dtype, q.device)
        assert p.is_meta or torch.equal(p, q)
    if "device" not in switch:
        randomised(a)
        b.load_state_dict(a.state_dict())
        x = torch.randn(shape, dtype=switch.get("dtype", torch.float32))
        torch.testing.assert_close(a(x), b(x))


@every_twin
def test_same_signature(ours, twin, args, shape):
    """torch's arguments, order and defaults; the extras are keyword-only."""
    theirs = [(p.name, p.default) for p in inspect.signature(twin).parameters.values()]
    mine = inspect.signature(ours).parameters.values()
    assert [(p.name, p.default) for p in mine if p.kind == p.POSITIONAL_OR_KEYWORD] == theirs
    extras = {"activation", "slope", "weight_offset", "backend"} | ({"bias"} if ours is nk.RMSNorm else set())
    assert {p.name for p in mine if p.kind == p.KEYWORD_ONLY} == extras


@every_twin
def test_state_dict_moves_both_ways(ours, twin, args, shape):
    a, b = randomised(ours(*args)), randomised(twin(*args))
    a2, b2 = ours(*args), twin(*args)
    a2.load_state_dict(b.state_dict())
    b2.load_state_dict(a.state_dict())
    x = torch.randn(shape)
    torch.testing.assert_close(a2(x), b(x))
    torch.testing.assert_close(b2(x), a(x))


@every_module
def test_extras(ours, shape):
    """Each extra does what the function does with it, and shows in the repr."""
    x = torch.randn(shape)
    function = {"LayerNorm": nk.functional.layer_norm, "RMSNorm": nk.functional.rms_norm}.get(ours.__name__)
    for extra in ({"activation": "leaky_relu", "slope": 0.3}, {"weight_offset": 1.0}, {"backend": "reference"}):
        module = randomised(ours(12, **extra))
        assert all(f"{k}={v!r}" in repr(module) for k, v in extra.items())
        tensors = {"weight": module.weight} | ({} if ours is nk.RMSNorm else {"bias": module.bias})
        want = (
            function(x, (12,), **tensors, **extra) if function else nk.functional.layer_norm_2d(x, **tensors, **extra)
        )
        assert torch.equal(module(x), want)


@every_module
def test_weight_offset_starts_as_identity(ours, shape):
    x = torch.randn(shape)
    assert torch.equal(ours(12, weight_offset=1.0)(x), ours(12)(x))


@every_module
def test_residual(ours, shape):
    module = randomised(ours(12))
    x, r = torch.randn(shape), torch.randn(shape)
    y, s = module(x, r)
    assert torch.equal(s, x + r)
    assert torch.equal(y, module(x + r))


@every_module
def test_copies(ours, shape):
    """deepcopy and pickle keep parameters and extras."""
    module = randomised(ours(12, activation="silu", weight_offset=1.0))
    x = torch.randn(shape)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module)
        assert torch.equal(twin(x), module(x))


@every_module
def test_dtypes(ours, shape):
    """.to(bfloat16) moves all; 16-bit input runs with float32 weights; autocast leaves input's dtype."""
    module, x = randomised(ours(12)), torch.randn(shape)
    assert copy.deepcopy(module).to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert module(x.bfloat16()).dtype == torch.bfloat16
    assert module(x.half()).dtype == torch.float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == torch.float32
        assert module(x.bfloat16()).dtype == torch.bfloat16


@every_module
def test_training_modes(ours, shape):
    """eval() changes nothing; gradients reach every parameter; checkpointing gives the same bits."""
    module = randomised(ours(12, activation="gelu"))
    x, dy = torch.randn(shape, requires_grad=True), torch.randn(shape)
    wanted = [x, *module.parameters()]
    plain = torch.autograd.grad(module(x), wanted, dy)
    again = torch.autograd.grad(checkpoint(module, x, use_reentrant=False), wanted, dy)
    assert all(map(torch.equal, plain, again))
    assert torch.equal(module.eval()(x), module.train()(x))
    with torch.no_grad():
        assert not module(x).requires_grad
    with torch.inference_mode():
        assert module(x).is_inference()


@every_module
def test_bad_extras(ours, shape):
    with pytest.raises(ValueError, match=f"{ours.__name__}: activation must be None or one of .*, got 'swish'"):
        ours(12, activation="swish")
    with pytest.raises(ValueError, match=f"{ours.__name__}: backend must be one of .*, got 'cuda'"):
        ours(12, backend="cuda")


@every_module
def test_a_shallow_copy_keeps_its_own_extras(ours, shape):
    module = ours(12, slope=0.2)
    twin = copy.copy(module)
    twin.slope, twin.activation = 0.3, "leaky_relu"
    assert (module.slope, module.activation) == (0.2, None)
    assert (twin.slope, twin.activation) == (0.3, "leaky_relu")


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("wanted", [torch.preserve_format, torch.contiguous_format, torch.channels_last], ids=str)
def test_memory_format(given, wanted, residual):
    """y, the sum and the gradient of the input lie as asked, and hold what permute -> layer_norm -> permute returns."""
    x = torch.randn(2, 12, 3, 4, dtype=torch.float64).contiguous(memory_format=given).requires_grad_()
    r = torch.randn_like(x) if residual else None
    module = randomised(nk.LayerNorm2d(12, memory_format=wanted, dtype=torch.float64))
    s = x if r is None else x + r
    rows = F.layer_norm(s.permute(0, 2, 3, 1), (12,), module.weight, module.bias)
    expected, lies = rows.permute(0, 3, 1, 2), given if wanted == torch.preserve_format else wanted
    for _ in range(4):  # the third one is replayed
        outputs = module(x, r)
        y = outputs[0] if residual else outputs
        (dx,) = torch.autograd.grad(y.cos().sum(), x)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(dx, torch.autograd.grad(expected.cos().sum(), x, retain_graph=True)[0])
        assert all(t.is_contiguous(memory_format=lies) for t in (*(outputs if residual else [y]), dx))
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)(x, r)
    assert (compiled[0] if residual else compiled).stride() == y.stride()


def test_memory_format_of_another_kind():
    with pytest.raises(ValueError, match=r"LayerNorm2d: memory_format must be one of .*, got 3"):
        nk.LayerNorm2d(12, memory_format=3)
    with pytest.raises(ValueError, match="layer_norm_2d: memory_format must be one of"):
        nk.functional.layer_norm_2d(torch.randn(2, 3, 4, 5), memory_format=None)
    assert "memory_format=torch.channels_last" in repr(nk.LayerNorm2d(12, memory_format=torch.channels_last))


def test_rms_norm_with_a_bias():
    """What torch.nn.RMSNorm has not: zeros at first, a key of the state, and none without an affine."""
    layer, x = nk.RMSNorm((3, 4), bias=True, weight_offset=1.0), torch.randn(5, 3, 4)
    assert not layer.weight.any()
    assert not layer.bias.any()
    assert layer.state_dict().keys() == {"weight", "bias"}
    assert repr(layer).endswith("weight_offset=1.0, bias=True)")
    randomised(layer)
    torch.testing.assert_close(layer(x), F.rms_norm(x, (3, 4), layer.weight + 1) + layer.bias)
    torch.testing.assert_close(nk.RMSNorm((3, 4), bias=True)(x), torch.nn.RMSNorm((3, 4))(x))
    layer.reset_parameters()
    assert not layer.bias.any()
    assert nk.RMSNorm(4, elementwise_affine=False, bias=True).bias is None
    assert copy.deepcopy(nk.RMSNorm(4)).state_dict().keys() == {"weight"}
