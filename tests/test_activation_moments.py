"""The constants of NormProp in 50 digits, and unit statistics and Jacobians with them."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.autograd import gradcheck

import normkernels as nk
from normkernels.moments import TABLE, prelu_moments

EXACT = json.loads((Path(__file__).parent / "golden/moments.json").read_text())


@pytest.mark.parametrize("name", [*TABLE, "leaky_relu"])
def test_constants(name):
    """All printed digits: the double nearest to the 50-digit value. ``golden`` has leaky_relu with 0.25."""
    found = nk.activation_moments(name, 0.25 if name == "leaky_relu" else None)
    for got, want in zip(found, EXACT[name], strict=True):
        assert abs(got - want) <= max(2 * math.ulp(want), 1e-17), (got, want)


@pytest.mark.parametrize("name", [*TABLE, "leaky_relu"])
def test_quadrature_of_a_callable(name):
    """What a user's own activation gets: adaptive quadrature, within what is documented."""
    pytest.importorskip("scipy")
    from normkernels._activations import activation

    found = nk.activation_moments(lambda u: activation(name, u, 0.01))
    assert max(abs(a - b) for a, b in zip(found, nk.activation_moments(name), strict=True)) < 1e-10


@pytest.mark.parametrize(("slope", "c1", "c2"), EXACT["prelu"])
def test_constants_of_prelu(slope, c1, c2):
    """In closed form, and differentiable, through the smallest c1 too."""
    assert prelu_moments(slope) == pytest.approx([c1, c2], rel=1e-14, abs=1e-16)
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
