"""Filters that lie in registers on the CPU: every way in which one ends, far from 0, and past the caches."""

import pytest
import torch
from common import need

import normkernels as nk
from normkernels.cases import OPS
from normkernels.tolerance import check

WEIGHT_NORM, STANDARDIZATION = OPS["weight_norm"], OPS["weight_standardization"]


@pytest.mark.parametrize("op", [WEIGHT_NORM, STANDARDIZATION], ids=str)
@pytest.mark.parametrize("N", [15, 16, 17, 27, 32, 64, 100, 127, 128, 129])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_short_filters(op, N, dtype):
    """Up to 128 values lie in registers on the CPU, the last of them read twice: near 0, far from it, and of zeros."""
    need(op, "native", "cpu")
    sample = op.make((37, N), torch.float64)
    weight = next(iter(sample.tensors.values()))
    weight[3:9] = 1e4 + 1e-2 * weight[3:9]
    weight[11:13] = 0
    weight[20:22] *= 1e-30
    wrong = [str(report) for report in check(op, sample, "native", dtype) if report.worst > 1]
    assert not wrong


@pytest.mark.parametrize("N", [33, 64])
def test_short_filters_far_from_0(N):
    """1e4 ± 1e-2 in float32: what rounding takes from the mean, 5 % of a deviation, is put back both ways."""
    need(STANDARDIZATION, "native", "cpu")
    x, dy = 1e4 + 1e-2 * torch.randn(5, N), torch.randn(5, N)

    def found(x, dy, backend):
        leaf = x.requires_grad_()
        y = nk.functional.weight_standardization(leaf, eps=1e-10, backend=backend)
        return y, *torch.autograd.grad(y, leaf, dy)

    (y, dx), exact = found(x, dy, "native"), found(x.double(), dy.double(), "reference")
    torch.testing.assert_close(y.double(), exact[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(dx.double(), exact[1], rtol=0, atol=1e-4 * exact[1].abs().max().item())


@pytest.mark.parametrize("f", [nk.functional.weight_norm, nk.functional.weight_standardization])
@pytest.mark.parametrize("shape", [(70_001, 64), (25_001, 176), (500, 9216)], ids=str)
def test_filters_past_the_caches(f, shape):
    """A filter's y and gradient have the bits that they have among few others: in registers, in parts, in tiles."""
    need(WEIGHT_NORM, "native", "cpu")
    w, g, dy = torch.randn(shape), torch.rand(shape[0]), torch.randn(shape)

    def found(rows):
        leaves = w[:rows].requires_grad_(), g[:rows].requires_grad_()
        y = f(*leaves, backend="native")
        return y, *torch.autograd.grad(y, leaves, dy[:rows])

    for many, few in zip(found(shape[0]), found(37), strict=True):
        assert torch.equal(many[:37], few)
