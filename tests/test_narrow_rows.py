"""Rows of one tile, which the CPU kernels take in one loop: every way in which a row ends, and what its end reads."""

import pytest
import torch
from common import small

from normkernels import tolerance
from normkernels.backends import unusable
from normkernels.cases import OPS
from normkernels.functional import layer_norm
from normkernels.tolerance import check

WIDTHS = (15, 16, 17, 31, 33, 63, 64, 65, 79, 255, 257, 2047, 2048, 2049)
LAYER_NORM = OPS["layer_norm"]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
pytestmark = pytest.mark.skipif(unusable("native", "layer_norm_fwd", "cpu") is not None, reason="not built")


def wrong(sample, dtype=torch.float32, op=LAYER_NORM) -> list[str]:
    return [str(report) for report in check(op, sample, "native", dtype) if report.worst > 1]


@pytest.mark.parametrize("N", WIDTHS)
@pytest.mark.parametrize("M", [1, 3, 4, 6, 69])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_end(N, M, dtype):
    for residual in (False, True):
        assert not wrong(small(LAYER_NORM, M, N, added=residual), dtype)


@pytest.mark.parametrize("first", [1e4, -1e6])
def test_first_values_far_from_the_others(first):
    """The moments are taken about them at first."""
    sample = small(LAYER_NORM, 5, 777)
    sample.tensors["input"][:, :16] += first
    assert not wrong(sample)


@pytest.mark.parametrize("at", [0, 20, 32])
def test_what_the_last_lanes_read_twice_counts_once(at):
    """An infinite gradient is infinite in its column of dbias alone."""
    x, dy, bias = torch.randn(6, 33), torch.randn(6, 33), torch.zeros(33, requires_grad=True)
    dy[2, at] = torch.inf
    (dbias,) = torch.autograd.grad(layer_norm(x, (33,), torch.ones(33), bias, backend="native"), bias, dy)
    assert dbias[at] == torch.inf
    assert torch.isfinite(dbias).sum() == 32


@pytest.mark.parametrize("N", [1000, 1001])
def test_results_that_go_past_the_caches(N, monkeypatch):
    """16 MB and more, whose rows begin anywhere in a cache line; one draw, for a tolerance below that of all."""
    monkeypatch.setattr(tolerance, "DRAWS", 1)
    assert not wrong(small(LAYER_NORM, (16 << 20) // (4 * N) + 1, N, added=True))


def test_rms_norm_with_strides():
    op = OPS["rms_norm"]
    sample = small(op, 9, 97)
    sample.tensors["input"] = torch.randn(9, 200)[:, 3:100]
    assert not wrong(sample, op=op)
