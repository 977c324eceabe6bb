"""NormProp: constants, kinks that stay, what is kept, unit statistics, Jacobians, layers and their filters."""

import copy
import math
import pickle
import runpy
from dataclasses import replace
from pathlib import Path

import mpmath
import pytest
import torch
import torch.nn.functional as F
from common import every_target, need
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

import normkernels as nk
from normkernels.cases import OPS
from normkernels.functional import normprop_conv, normprop_linear
from normkernels.moments import TABLE, prelu_moments
from normkernels.ops._normprop import KINKS, epilogue
from normkernels.tolerance import given, run

OP = OPS["normprop"]
EXACT = runpy.run_path(str(Path(__file__).parent / "golden/make.py"))["ACTIVATIONS"]
POINTS = [-mpmath.inf, -20, -6, -3, -1, 0, 1, 3, 6, 20, mpmath.inf]  # of the quadrature: every kink is one


def quadrature(f):
    """c1, c2 and the gain of the Jacobian in 50 digits."""
    with mpmath.workdps(50):
        mean = lambda g: mpmath.quad(lambda z: g(z) * mpmath.npdf(z), POINTS)  # noqa: E731
        c2 = mean(f)
        c1 = mpmath.sqrt(mean(lambda z: (f(z) - c2) ** 2))
        return c1, c2, mpmath.sqrt(mean(lambda z: mpmath.diff(f, z, h=mpmath.mpf(10) ** -20) ** 2)) / c1


@pytest.mark.parametrize("name", [*TABLE, "leaky_relu"])
def test_constants(name):
    """All printed digits: the double nearest to the 50-digit value. ``golden/make.py`` has leaky_relu with 0.25."""
    found = nk.activation_moments(name, 0.25 if name == "leaky_relu" else None)
    for got, want in zip(found, quadrature(EXACT[name]), strict=True):
        assert abs(got - float(want)) <= max(2 * math.ulp(float(want)), 1e-17), (got, want)


@pytest.mark.parametrize("name", [*TABLE, "leaky_relu"])
def test_quadrature_of_a_callable(name):
    """What a user's own activation gets: adaptive quadrature, within what is documented."""
    pytest.importorskip("scipy")
    from normkernels._activations import activation

    found = nk.activation_moments(lambda u: activation(name, u, 0.01))
    assert max(abs(a - b) for a, b in zip(found, nk.activation_moments(name), strict=True)) < 1e-10


@pytest.mark.parametrize("slope", [-2.0, -1 / (math.pi - 1), 0.0, 0.25, 1.0])
def test_constants_of_prelu(slope):
    """In closed form, and differentiable, through the smallest c1 too."""
    want = quadrature(lambda u: u if u > 0 else mpmath.mpf(slope) * u)[:2]
    assert prelu_moments(slope) == pytest.approx([float(w) for w in want], rel=1e-14, abs=1e-16)
    assert gradcheck(lambda a: prelu_moments(a), torch.tensor([slope], dtype=torch.float64, requires_grad=True))


MOMENTS = {
    "name": ("swish", "be None, a callable or one of prelu"),
    "constant": (lambda u: u * 0 + 3, "have finite moments and not be constant"),
    "sum": (lambda u: u.sum(), "return a tensor of its argument's shape"),
}


@pytest.mark.parametrize("wrong", MOMENTS)
def test_wrong_moments(wrong):
    activation, rule = MOMENTS[wrong]
    with pytest.raises(ValueError, match=f"^activation_moments: activation must {rule}"):
        nk.activation_moments(activation)


@every_target
@pytest.mark.parametrize("sample", OP.samples, ids=str)
def test_against_the_equations(sample, backend, device):
    """Equations 9, 11 and 12 and their derivatives by autograd, in float64."""
    need(OP, backend, device)
    tensors, cotangents = given(OP, sample, torch.float64, device=device)
    got = run(OP, sample.call, tensors, cotangents, backend)
    twin = replace(OP, function=lambda *, backend, **kwargs: OP.torch(**kwargs))
    for name, want in run(twin, sample.call, tensors, cotangents, None).items():
        scale = max([1.0, *want.abs().flatten().tolist()])
        torch.testing.assert_close(got[name], want, rtol=1e-11, atol=1e-11 * scale, msg=lambda m, n=name: f"{n}: {m}")


@every_target
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [k for k in KINKS if k != "identity"])
def test_kinks_survive_rounding(name, dtype, backend, device):
    """The slope that backward takes from a rounded output is that of the input, next to a kink too."""
    need(OP, backend, device)
    kinks = [{"hardsigmoid": 6 * k - 3}.get(name, k) for k in KINKS[name] if math.isfinite(k)]
    near = torch.logspace(-8, 0, 40, dtype=torch.float64)
    u = torch.cat([torch.cat([k - near, torch.tensor([k]), k + near]) for k in kinks]).sort()[0].to(device, dtype)
    x = u[:, None].requires_grad_()
    one = torch.ones(1, 1, dtype=dtype, device=device)
    y = normprop_linear(x, one, one[0], None, name, backend=backend)
    y.sum().backward()
    slope = torch.ones_like(u).double()
    low, high = (kinks[0], kinks[-1] if len(kinks) > 1 else math.inf)
    inside = (u > low) & (u < high)
    if name == "hardsigmoid":  # the last values before 1 round to it
        f = (u.float() + 3).clamp(0, 6) / 6 if dtype != torch.float64 else (u + 3).clamp(0, 6) / 6
        inside = (f > 0) & (f < 1)
        slope = slope / 6
    slope = torch.where(inside, slope, 0.01 if name == "leaky_relu" else 0.0)
    torch.testing.assert_close(
        x.grad[:, 0].double(), (slope * epilogue(name, 0.01, dtype).scale), rtol=2 * torch.finfo(dtype).eps, atol=0
    )
    assert (y.detach().double().diff(dim=0) >= 0).all()  # still monotone


@every_target
@pytest.mark.parametrize(
    ("activation", "more"), [("relu", 0), ("tanh", 0), ("softplus", 0), (None, 0), ("gelu", 1), ("prelu", 1)]
)
def test_what_is_kept(activation, more, backend, device):
    """Of the output's size only the output itself, where it tells the slope; else the pre-activation too."""
    need(OP, backend, device)
    if backend == "reference":
        pytest.skip("torch's own ops keep what they keep")
    x, w, g, b = torch.randn(40, 8), torch.randn(64, 8), torch.ones(64), torch.zeros(64)
    x, w, g, b = (t.to(device).requires_grad_() for t in (x, w, g, b))
    slope = torch.full((1,), 0.25, device=device) if activation == "prelu" else None
    kept = []
    with saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = normprop_linear(x, w, g, b, activation, slope, backend=backend)
    large = {t.data_ptr() for t in kept if t.numel() == y.numel()}
    assert len(large - {y.data_ptr()}) == more
    assert more or activation is None or y.data_ptr() in large  # without an activation nothing is


def layer(width=512, gain=1.0, activation="relu"):
    return nk.NormPropLinear(width, width, activation, gain_init=gain, dtype=torch.float64)


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "silu"])
def test_unit_statistics(activation):
    """With gain 1 whitened input comes out with mean 0 and variance 1."""
    torch.manual_seed(0)
    y = layer(activation=activation)(torch.randn(4000, 512, dtype=torch.float64))
    assert y.mean().abs() < 0.01
    assert (y.std() - 1).abs() < 0.01


def test_jacobian():
    """With gain 1 / jacobian_factor gradients keep their size; the paper rounds the factor to 1.21."""
    torch.manual_seed(0)
    x = torch.randn(4000, 512, dtype=torch.float64, requires_grad=True)
    m = layer(gain="jacobian")
    assert m.gain[0].item() == pytest.approx(1 / 1.21, rel=1e-3)
    # slopes at the unit pre-activation that the constants are for
    m.gain.data.fill_(1.0)
    (dx,) = torch.autograd.grad(m(x), x, dy := torch.randn(4000, 512, dtype=torch.float64))
    assert (dx.std() / dy.std() / nk.activation_moments("relu").jacobian_factor - 1).abs() < 0.01


@every_target
def test_the_gradient_is_at_right_angles(backend, device):
    need(OP, backend, device)
    x = torch.randn(9, 7, dtype=torch.float64, device=device)
    w = torch.randn(5, 7, dtype=torch.float64, device=device, requires_grad=True)
    gain = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=torch.float64, device=device)
    y = normprop_linear(x, w, gain, None, "tanh", backend=backend)
    (dw,) = torch.autograd.grad(y, w, torch.randn_like(y))
    assert ((w * dw).sum(1) / (w.norm(dim=1) * dw.norm(dim=1)).clamp(min=1e-300)).abs().max() < 1e-14


@pytest.mark.parametrize("activation", ["tanh", "gelu", "prelu", "leaky_relu"])
def test_second_derivatives(activation):
    torch.manual_seed(0)
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 4, 3, 3), (4, 2, 2, 2), (4,), (4,))]
    slope = [torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)] if activation == "prelu" else []

    def function(x, w, g, b, a=None):
        return normprop_conv(x, w, g, b, padding=1, groups=2, activation=activation, slope=a)

    assert gradgradcheck(function, [*leaves, *slope])


def test_unbatched_and_same_padding():
    x, w, g = torch.randn(2, 3, 9), torch.randn(4, 3, 4), torch.ones(4)
    y = normprop_conv(x, w, g, padding="same", dilation=2)
    assert y.shape == (2, 4, 9)
    torch.testing.assert_close(normprop_conv(x[0], w, g, padding="same", dilation=2), y[0])
    scaled = w / w.flatten(1).norm(dim=1).view(4, 1, 1)
    c1, c2, _ = nk.activation_moments("relu")
    torch.testing.assert_close(y, (F.conv1d(x, scaled, padding="same", dilation=2).relu() - c2) / c1)


x45, w34 = torch.randn(4, 5), torch.randn(3, 5)
WRONG = {
    "features": ({"input": torch.ones(4, 6)}, r"input must end in the 5 features of weight, got shape \(4, 6\)"),
    "input-int": ({"input": x45.int()}, "input must be float64, float32, bfloat16 or float16, got torch.int32"),
    "weight-rank": ({"weight": torch.ones(3)}, r"weight must be a tensor \(out_features, in_features\), got"),
    "weight-dtype": ({"weight": w34.double()}, "weight must have input's dtype torch.float32, got torch.float64"),
    "gain": ({"gain": torch.ones(4)}, r"gain must have shape \(3,\), got \(4,\)"),
    "no-gain": ({"gain": None}, "gain must be given, got None"),
    "bias": ({"bias": torch.ones(4)}, r"bias must have shape \(3,\), got \(4,\)"),
    "activation": ({"activation": "swish"}, "activation must be None or one of .*relu.*, got 'swish'"),
    "no-slope": ({"activation": "prelu"}, "slope must be a tensor with activation 'prelu', got None"),
    "slope": ({"slope": torch.ones(3)}, "slope must be a float or None without activation 'prelu', got a tensor"),
    "slopes": ({"activation": "prelu", "slope": torch.ones(2)}, r"slope must have shape \(3,\), got \(2,\)"),
    "backend": ({"backend": "cuda"}, "backend must be one of triton, native, reference, got 'cuda'"),
}
WRONG_CONV = {
    "channels": ({"input": torch.ones(2, 3, 8)}, "input must have 4 channels and 1 dims of space"),
    "rank": ({"input": torch.ones(2, 4, 8, 8)}, "input must have 4 channels and 1 dims of space"),
    "weight": ({"weight": torch.ones(6, 4)}, "weight must be a tensor"),
    "stride": ({"stride": (1, 1)}, r"stride must be one or 1 integers from 1, got \(1, 1\)"),
    "padding": ({"padding": -1}, "padding must be one or 1 integers from 0, 'same' or 'valid', got -1"),
    "word": ({"padding": "full"}, "padding must be one or 1 integers from 0, 'same' or 'valid', got 'full'"),
    "same": ({"padding": "same", "stride": 2}, "padding must be numbers where stride is not 1, got 'same'"),
    "groups": ({"groups": 4}, "groups must be positive and divide the 6 filters of weight, got 4"),
    "small": ({"input": torch.ones(2, 4, 2)}, r"input must be at least as large as the dilated kernel \(3\) in dim -1"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments(wrong):
    changes, message = WRONG[wrong]
    with pytest.raises(ValueError, match=f"^normprop_linear: {message}"):
        normprop_linear(**({"input": x45, "weight": w34, "gain": torch.ones(3)} | changes))


@pytest.mark.parametrize("wrong", WRONG_CONV)
def test_wrong_arguments_of_a_convolution(wrong):
    changes, message = WRONG_CONV[wrong]
    with pytest.raises(ValueError, match=f"^normprop_conv: {message}"):
        normprop_conv(
            **({"input": torch.ones(2, 4, 8), "weight": torch.ones(6, 4, 3), "gain": torch.ones(6)} | changes)
        )


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
