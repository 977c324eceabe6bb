"""NormProp's layers and the filters of them."""

import copy
import pickle

import pytest
import torch
from torch import nn

import normkernels as nk

LAYERS = [
    pytest.param(lambda **kw: nk.NormPropLinear(6, 5, **kw), (3, 6), id="linear"),
    pytest.param(lambda **kw: nk.NormPropConv1d(4, 6, 3, 2, 1, **kw), (2, 4, 9), id="conv1d"),
    pytest.param(lambda **kw: nk.NormPropConv2d(4, 6, (3, 2), groups=2, padding_mode="circular", padding="same", **kw),
                 (2, 4, 5, 6), id="conv2d"),
    pytest.param(lambda **kw: nk.NormPropConv3d(2, 3, 2, padding=1, padding_mode="replicate", **kw),
                 (2, 2, 3, 3, 3), id="conv3d"),
]  # fmt: skip
every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS)


@every_layer
@pytest.mark.parametrize("activation", ["relu", "prelu", "silu", torch.sin, None])
def test_layers(make, shape, activation):
    """Copies and state_dicts compute the same, compiled code too; parameters start as they should."""
    if callable(activation):
        pytest.importorskip("scipy")
    m, x = make(activation=activation), torch.randn(shape)
    y = m(x)
    other = make(activation=activation)
    other.load_state_dict(m.state_dict())
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m)), other):
        assert torch.equal(twin(x), y)
    factor = nk.activation_moments("prelu" if activation == "prelu" else activation).jacobian_factor
    torch.testing.assert_close(m.gain.detach(), torch.full_like(m.gain, 1 / factor))
    assert not m.bias.any()
    assert repr(m)
    if x.dim() in (2, 4):  # a convolution of another rank is the same code
        torch._dynamo.reset()
        compiled = torch.compile(m, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), y)


@every_layer
def test_layers_in_16_bits(make, shape):
    """A model in 16 bits, float32 parameters beside a 16-bit input, and autocast."""
    m, x = make(), torch.randn(shape)
    y = m(x)
    assert m(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = m(x)
    assert mixed.dtype == torch.bfloat16
    mixed.sum().backward()
    assert m.weight.grad.dtype == torch.float32
    for low in (mixed, m.bfloat16()(x.bfloat16())):
        torch.testing.assert_close(low.float(), y, atol=0.1, rtol=0.1)


@every_layer
def test_prelu_has_a_slope_for_each_channel(make, shape):
    filters = len(make().weight)
    m = make(activation="prelu", num_parameters=filters, slope=0.1)
    m(torch.randn(shape)).square().sum().backward()
    assert m.slope.shape == m.slope.grad.shape == (filters,)
    assert (m.slope == 0.1).all()
    with pytest.raises(ValueError, match=f"num_parameters must be 1 or the number of filters, {filters}, got 2"):
        make(activation="prelu", num_parameters=2)


def test_channels_last_is_kept():
    m, x = nk.NormPropConv2d(4, 6, 3), torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    y = m(x)
    torch.testing.assert_close(y, m(x.contiguous()))
    m = m.to(memory_format=torch.channels_last)
    assert m(x).is_contiguous(memory_format=torch.channels_last)
    m(x).sum().backward()


def test_two_micro_batches_accumulate():
    """Their gradients are those of one batch; a step between forward and backward is refused as torch refuses it."""
    m, x = nk.NormPropLinear(6, 5).double(), torch.randn(4, 6, dtype=torch.float64)
    m(x).square().sum().backward()
    want = [p.grad.clone() for p in m.parameters()]
    m.zero_grad()
    for half in x.split(2):
        m(half).square().sum().backward()
    torch.testing.assert_close([p.grad for p in m.parameters()], want)
    y = m(x).sum()
    nk.project_unit_norm_(m)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_project_unit_norm():
    """The outputs stay; the norms are 1; the optimizer's own state stays."""
    model = nn.Sequential(nk.NormPropLinear(6, 5), nk.NormPropLinear(5, 4, "tanh"), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x = torch.randn(3, 6)
    model(x).sum().backward()
    optimizer.step()
    y, plain = model(x), model[2].weight.clone()
    momentum = [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    nk.project_unit_norm_(model)
    torch.testing.assert_close(model(x), y)
    torch.testing.assert_close(model[0].weight.norm(dim=1), torch.ones(5))
    assert torch.equal(model[2].weight, plain)
    assert all(torch.equal(a, s["momentum_buffer"]) for a, s in zip(momentum, optimizer.state.values(), strict=True))


def test_wrong_layers():
    for kwargs, message in (
        ({"gain_init": "one"}, "gain_init must be 'jacobian' or a number, got 'one'"),
        ({"activation": "swish"}, "activation must be None or one of"),
        ({"backend": "cuda"}, "backend must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            nk.NormPropLinear(3, 4, **kwargs)
    with pytest.raises(ValueError, match="NormPropConv2d: in_channels must be divisible by groups, 2, got 3"):
        nk.NormPropConv2d(3, 4, 3, groups=2)
    with pytest.raises(
        ValueError, match="padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', got 'same'"
    ):
        nk.NormPropConv2d(4, 4, 3, padding_mode="same")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_is_that_of_torch(mode):
    """With an even kernel and another dilation in each dim, where the order of dims and of their ends shows."""
    options = {"padding": "same", "padding_mode": mode, "dilation": (1, 3)}
    m, theirs = nk.NormPropConv2d(4, 6, (3, 2), activation=None, **options), nn.Conv2d(4, 6, (3, 2), **options)
    with torch.no_grad():
        theirs.weight.copy_(m.weight / m.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        theirs.bias.zero_()
    x = torch.randn(2, 4, 7, 8)
    torch.testing.assert_close(m(x), theirs(x))
