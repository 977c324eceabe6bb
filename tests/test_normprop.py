"""NormProp as a function: its equations, kinks that stay, what is kept, errors."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from common import every_target, need
from torch.autograd import gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

import normkernels as nk
from normkernels.cases import OPS
from normkernels.functional import normprop_conv, normprop_linear
from normkernels.ops._normprop import KINKS, epilogue
from normkernels.tolerance import given, run

OP = OPS["normprop"]


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
