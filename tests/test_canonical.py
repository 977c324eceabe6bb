"""Coherence of filters, and the bound of proposition 1 of Normalization Propagation."""

import math

import pytest
import torch

import normkernels as nk

pytestmark = pytest.mark.usefixtures("seeded")


def by_pairs(weight):
    """(mu, the bound) by the definition, pair by pair."""
    rows = [w.flatten().double() for w in weight]
    pairs = [(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    mu = max((abs(a @ b) / (a.norm() * b.norm()) for a, b in pairs), default=torch.tensor(0.0))
    return float(mu), float(mu) * math.sqrt(sum((a @ a) * (b @ b) for a, b in pairs))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 2, 3, 3), (1, 4), (2, 1)])
def test_definition(shape):
    weight = torch.randn(shape, dtype=torch.float64) * torch.rand(shape[0], *[1] * (len(shape) - 1)).double()
    mu, bound = by_pairs(weight)
    assert nk.coherence(weight).item() == pytest.approx(mu, rel=1e-13, abs=1e-13)
    assert nk.canonical_error_bound(weight, 1.5).item() == pytest.approx(2.25 * bound, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("std", [1.0, 0.3])
def test_it_bounds_the_covariance_of_white_inputs(std):
    """The covariance is std² W Wᵀ, and the closest diagonal its own; the bound is met where all cosines are equal."""
    for weight in (torch.randn(7, 12).double(), torch.eye(4).double() + 1):
        covariance = std**2 * weight @ weight.T
        error = (covariance - covariance.diag().diag()).norm()
        bound = nk.canonical_error_bound(weight, std)
        assert error <= bound * (1 + 1e-12)
    torch.testing.assert_close(error, bound)


def test_extremes():
    """Orthogonal, parallel and zero filters; any length; 16 bits are computed in float32."""
    assert nk.coherence(torch.eye(3)) == 0
    assert nk.coherence(torch.tensor([[1.0, 2.0], [-2.0, -4.0]])).item() == pytest.approx(1, abs=1e-6)
    weight = torch.randn(4, 6)
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(nk.coherence(weight * scale), nk.coherence(weight))
    with_zero = torch.cat([weight, torch.zeros(1, 6)])
    assert nk.coherence(with_zero) == nk.coherence(weight)
    assert nk.canonical_error_bound(torch.zeros(3, 2)) == 0
    assert nk.coherence(weight.bfloat16()).dtype == torch.float32
    assert nk.coherence(weight.bfloat16()) == nk.coherence(weight.bfloat16().float())


@pytest.mark.parametrize("function", [nk.coherence, nk.canonical_error_bound])
def test_gradients(function):
    assert torch.autograd.gradcheck(function, torch.randn(4, 5, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("function", [nk.coherence, nk.canonical_error_bound])
def test_errors(function):
    for weight, rule in [
        (torch.ones(3), "weight must have shape \\(m, \\*\\) and a filter, got \\(3,\\)"),
        (torch.ones(0, 3), "weight must have shape \\(m, \\*\\) and a filter, got \\(0, 3\\)"),
        (torch.ones(2, 3).long(), "weight must be a dense tensor of .*, got torch.int64"),
        ([[1.0]], "weight must be a dense tensor of .*, got list"),
    ]:
        with pytest.raises(ValueError, match=f"{function.__name__}: {rule}"):
            function(weight)
    with pytest.raises(ValueError, match="canonical_error_bound: std must be at least 0, got -1"):
        nk.canonical_error_bound(torch.ones(2, 2), -1)
