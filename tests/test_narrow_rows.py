"""Rows that the CPU kernels take in one loop, and shorter ones: every way in which a row ends."""

import pytest
import torch
from common import small
from torch.testing import assert_close

from normkernels import tolerance
from normkernels._backends import unusable
from normkernels.cases import OPS
from normkernels.functional import layer_norm, rms_norm
from normkernels.tolerance import check

SHORT = 1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 79, 100, 112, 127, 128, 129
WIDTHS = (*SHORT, 255, 257, 2047, 2048, 2049, 4079, 4096, 4097, 8200)
LAYER_NORM = OPS["layer_norm"]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
pytestmark = pytest.mark.skipif(unusable("native", "layer_norm_fwd", "cpu") is not None, reason="not built")


def wrong(sample, dtype=torch.float32, op=LAYER_NORM) -> list[str]:
    return [str(report) for report in check(op, sample, "native", dtype) if report.worst > 1]


@pytest.mark.parametrize("N", WIDTHS)
@pytest.mark.parametrize("M", [1, 6, 69])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_end(N, M, dtype):
    for options in ({}, {"activation": "gelu"}, {"activation": "tanh", "added": True}):
        assert not wrong(small(LAYER_NORM, M, N, **options), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("N", [32, 96, 2048, 2080, 4128, 8192, 8224])
@pytest.mark.parametrize("M", [3, 4, 37])
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_two_to_a_word(op, N, M, dtype):
    """Rows of 16 bits of whole words, few and many, with the residual's gradient and an activation."""
    for options in ({}, {"activation": "gelu"}, {"activation": "tanh", "added": True}):
        assert not wrong(small(OPS[op], M, N, **options), dtype, OPS[op])


@pytest.mark.parametrize(("activation", "dtype"), [(None, torch.bfloat16), ("silu", torch.float16)], ids=str)
def test_two_to_a_word_past_the_caches(activation, dtype, monkeypatch):
    monkeypatch.setattr(tolerance, "DRAWS", 1)
    sample = small(LAYER_NORM, (16 << 20) // (2 * 4096) + 1, 4096, added=True, activation=activation)
    assert not wrong(sample, dtype)


def test_every_number_of_float16():
    """Subnormal ones are read and written as they are, what is too large is infinite, and rounding is to even."""
    bits = torch.arange(1 << 15, dtype=torch.int16).view(-1, 64)
    x = bits.view(torch.half)[: 0x7C00 // 64]
    scale = 2.0 ** torch.arange(-20, 21, 4).float().repeat_interleave(8)[:64]
    for weight in (torch.ones(64), scale):
        y = rms_norm(x, (64,), weight, eps=1.0, backend="native")
        exact = x.double() * (x.double().square().mean(1, keepdim=True) + 1).rsqrt() * weight.double()
        assert_close(y, exact.half(), rtol=2**-10, atol=2**-24)
        assert y[0].equal(exact[0].half())
    assert rms_norm(torch.ones(6, 64).half(), (64,), torch.full((64,), 1e5), backend="native").isposinf().all()


@pytest.mark.parametrize("column", [0, 1, 63])
def test_two_to_a_word_with_a_nan(column):
    """It stays in its row, forward, and in its column of dbias, backward; its bits are not rounded into a number."""
    x, dy, bias = (torch.randn(n, 64).bfloat16() for n in (6, 6, 1))
    x.view(torch.int16)[2, column] = 0x7FFF
    dy.view(torch.int16)[4, column] = 0x7FFF
    bias = bias[0].requires_grad_()
    y = layer_norm(x, (64,), torch.ones(64).bfloat16(), bias, backend="native")
    (dbias,) = torch.autograd.grad(y, bias, dy)
    assert y.isnan().any(1).tolist() == y.isnan().all(1).tolist() == [False, False, True, False, False, False]
    assert dbias.isnan().nonzero().tolist() == [[column]]


@pytest.mark.parametrize("column", [6, 7])
def test_two_to_a_word_with_a_nan_of_all_bits(column):
    """Rounded as a number, it would carry over into the sign of a zero."""
    weight = torch.ones(64)
    weight.view(torch.int32)[column] = 0x7FFFFFFF
    y = layer_norm(torch.randn(6, 64).bfloat16(), (64,), weight, backend="native")
    assert y.isnan().nonzero()[:, 1].tolist() == [column] * 6


@pytest.mark.parametrize("N", [9, 777])
@pytest.mark.parametrize("first", [1e4, -1e6])
def test_first_values_far_from_the_others(first, N):
    """The moments are taken about them at first."""
    sample = small(LAYER_NORM, 5, N)
    sample.tensors["input"][:, : min(16, N // 2)] += first
    assert not wrong(sample)


@pytest.mark.parametrize("N", [9, 40])
@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_squares_that_float_does_not_hold(N, size):
    sample = small(LAYER_NORM, 19, N)
    sample.tensors["input"][3] *= size
    assert not wrong(sample)


@pytest.mark.parametrize(("N", "at"), [(33, 0), (33, 20), (33, 32), (9, 0), (9, 8)])
def test_what_the_last_lanes_read_twice_counts_once(N, at):
    """An infinite gradient is infinite in its column of dbias alone."""
    x, dy, bias = torch.randn(6, N), torch.randn(6, N), torch.zeros(N, requires_grad=True)
    dy[2, at] = torch.inf
    (dbias,) = torch.autograd.grad(layer_norm(x, (N,), torch.ones(N), bias, backend="native"), bias, dy)
    assert dbias[at] == torch.inf
    assert torch.isfinite(dbias).sum() == N - 1


@pytest.mark.parametrize(
    ("N", "activation"),
    [(1024, None), (1024, "relu"), (4096, None), (1000, None), (1001, "relu"), (4091, None), (8224, None)],
)
def test_results_that_go_past_the_caches(N, activation, monkeypatch):
    """16 MB and more, in whole cache lines or anywhere in them; one draw, for a tolerance below that of all."""
    monkeypatch.setattr(tolerance, "DRAWS", 1)
    assert not wrong(small(LAYER_NORM, (16 << 20) // (4 * N) + 1, N, added=True, activation=activation))


@pytest.mark.parametrize("N", [11, 97])
def test_rms_norm_with_strides(N):
    op = OPS["rms_norm"]
    sample = small(op, 19, N)
    sample.tensors["input"] = torch.randn(19, 200)[:, 3 : 3 + N]
    assert not wrong(sample, op=op)


@pytest.mark.parametrize("N", [64, 100, 192, 768, 2050])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_from_memory_are_what_they_are_alone(N, dtype):
    """8 MB and more go a row at a time, fewer several together: the same bits of dx, and of the sums of one block."""
    torch.manual_seed(0)
    M = (9 << 20) // (3 * N * dtype.itemsize)
    x, dy, w = torch.randn(M, N, dtype=dtype), torch.randn(M, N, dtype=dtype), torch.rand(N, dtype=dtype)

    def dx(rows):
        leaf = x[:rows].requires_grad_()
        return torch.autograd.grad(layer_norm(leaf, (N,), w, backend="native"), leaf, dy[:rows])[0]

    assert torch.equal(dx(M)[:37], dx(37))
