"""Rows of one tile, which the CPU kernels take in one loop: every way in which a row ends, and what its end reads."""

import pytest
import torch

import normkernels as nk
from normkernels.backends import unusable
from normkernels.functional import layer_norm

WIDTHS = (15, 16, 17, 31, 33, 63, 64, 65, 79, 2047, 2048, 2049)
pytestmark = pytest.mark.skipif(unusable("native", "layer_norm_fwd", "cpu") is not None, reason="not built")


def run(x, weight, bias, dy, residual=None, backend="native"):
    """y, the gradients of input, weight and bias; with a residual its sum last."""
    x, weight, bias = (t.detach().clone().requires_grad_() for t in (x, weight, bias))
    y = layer_norm(x, (x.shape[1],), weight, bias, residual=residual, backend=backend)
    y, *summed = (y,) if residual is None else y
    return [y.detach(), *torch.autograd.grad([y, *summed], [x, weight, bias], [dy, *(2 * dy for _ in summed)])]


def close(found, expected, scale):
    for a, b in zip(found, expected, strict=True):
        error = (a.double() - b.double()).abs().max()
        assert error <= scale * b.double().abs().max().clamp_min(1.0), error


@pytest.mark.parametrize("N", WIDTHS)
@pytest.mark.parametrize("M", [1, 3, 4, 6, 69])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_end(N, M, dtype):
    torch.manual_seed(N * M)
    x, dy, residual = (torch.randn(M, N).to(dtype) for _ in range(3))
    weight, bias = (1 + 0.3 * torch.randn(2, N)).to(dtype)
    scale = {torch.float64: 1e-13, torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    for r in (None, residual):
        s = x if r is None else x + r  # rounded, as the kernel rounds it
        exact = [t.double() for t in (s, weight, bias, dy)]
        expected = run(*exact, backend="reference")
        if r is not None:
            expected[1] = expected[1] + 2 * dy.double()
        close(run(x, weight, bias, dy, r), expected, scale)


@pytest.mark.parametrize("first", [1e4, -1e6])
def test_first_values_far_from_the_others(first):
    """The moments are taken about them at first."""
    x = torch.randn(5, 777, generator=torch.Generator().manual_seed(0))
    x[:, :16] += first
    weight, bias, dy = torch.ones(777), torch.zeros(777), torch.randn(5, 777)
    exact = run(*(t.double() for t in (x, weight, bias, dy)), backend="reference")
    close(run(x, weight, bias, dy), exact, 3e-6)


@pytest.mark.parametrize("at", [0, 20, 32])
def test_what_the_last_lanes_read_twice_counts_once(at):
    """An infinite gradient is infinite in its column of dbias alone."""
    x, dy = torch.randn(6, 33), torch.randn(6, 33)
    dy[2, at] = torch.inf
    dbias = run(x, torch.ones(33), torch.zeros(33), dy)[3]
    assert dbias[at] == torch.inf
    assert torch.isfinite(dbias).sum() == 32


@pytest.mark.parametrize("N", [1000, 1001])
def test_results_that_go_past_the_caches(N):
    """16 MB and more, whose rows begin anywhere in a cache line."""
    M = (16 << 20) // (4 * N) + 1
    x, dy, residual = torch.randn(3, M, N)
    weight, bias = torch.randn(2, N)
    s = (x + residual).double()
    expected = run(s, weight.double(), bias.double(), dy.double(), backend="reference")
    expected[1] += 2 * dy.double()
    close(run(x, weight, bias, dy, residual), expected, 1e-5)


def test_rms_norm_with_strides():
    x = torch.randn(9, 200, generator=torch.Generator().manual_seed(1))[:, 3:100].requires_grad_()
    layer = nk.RMSNorm(97, backend="native")
    y = layer(x)
    expected = torch.nn.functional.rms_norm(x.detach().double(), (97,), eps=torch.finfo(torch.float32).eps)
    close([y.detach()], [expected], 1e-6)
