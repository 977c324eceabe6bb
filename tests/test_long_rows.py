"""Rows that no program of Triton holds: walked by one, or shared among several where they are few, with the same bits.

Interpreted, four multiprocessors share one or two rows. Rows that are walked are among the samples of all backends, in
float64, and below.
"""

import pytest
import torch
from common import small
from test_ptx_triton import compiled

from normkernels import tolerance
from normkernels._backends import unusable
from normkernels.cases import OPS
from normkernels.tolerance import check

interpreted = pytest.mark.skipif(unusable("triton", "layer_norm_fwd", "cpu") is not None, reason="not interpreted")


@interpreted
@pytest.mark.parametrize(("op", "rows"), [("layer_norm", 2), ("rms_norm", 1)])
def test_long_rows(op, rows, monkeypatch):
    """Of more than eight parts, the last one ragged."""
    monkeypatch.setattr(tolerance, "DRAWS", 1)
    sample = small(OPS[op], rows, 36_873, added=True)
    wrong = [str(r) for r in check(OPS[op], sample, "triton", torch.bfloat16) if r.worst > 1]
    assert not wrong, "\n".join(wrong)


@interpreted
def test_many_long_rows(monkeypatch):
    """More than a program walks down at once, backward."""
    monkeypatch.setattr(tolerance, "DRAWS", 1)
    op = OPS["layer_norm"]
    assert all(r.worst <= 1 for r in check(op, small(op, 40, 9_300), "triton", torch.float32))


@interpreted
def test_added_sums_of_rows_far_from_0():
    """1e4 ± 1e-2 in float32: the value that is taken off first is near, and what rounding left of it is, too."""
    torch.manual_seed(0)
    x = torch.randn(1, 24_600) * 1e-2 + 1e4
    y = OPS["layer_norm"].function(x, (24_600,), backend="triton")
    torch.testing.assert_close(y, torch.nn.functional.layer_norm(x.double(), (24_600,)).float(), rtol=0, atol=1e-5)


SAME = """
import random, sys, torch
import normkernels as nk
from tests.ptx.launch import running
op, dtype, N = getattr(nk.functional, sys.argv[1]), getattr(torch, sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
x, dy, w = torch.randn(3, N).to(dtype), torch.randn(3, N).to(dtype), torch.randn(N)
def call(i):
    given = x[i].clone().requires_grad_()
    y = op(given, (N,), w, backend="triton")
    y.backward(dy[i])
    return y[-1], given.grad[-1]
with running(random.Random(0)) as launched:
    together = call(slice(3))
    walked = [one.kernel for one in launched]
    alone = call(slice(2, 3))
shared = [one.kernel for one in launched][len(walked):]
assert walked == ["rows_long_forward_kernel", "rows_long_sums_kernel", "rows_long_backward_kernel"], walked
assert shared == walked[:1] + walked, shared
assert all(map(torch.equal, together, alone))
"""


@pytest.mark.parametrize(
    ("op", "dtype", "columns"), [("layer_norm", "float32", 25_000), ("rms_norm", "bfloat16", 24_577)]
)
def test_shared_or_walked_a_row_is_the_same(op, dtype, columns):
    """In the PTX of a GPU, warps in random order: three rows are walked, one is shared."""
    pytest.importorskip("numpy")
    compiled("-c", SAME, op, dtype, str(columns))


BEYOND = """
import torch
import normkernels as nk
from tests.ptx.launch import running
N = 9216
x = torch.ones(2 * N + 1, dtype=torch.bfloat16).as_strided((2, N), (N + 1, 1)).requires_grad_()
with running() as launched:
    nk.functional.layer_norm(x, (N,), backend="triton").sum().backward()
assert "rows_long_sums_kernel" in [one.kernel for one in launched]
"""


def test_nothing_is_asked_for_beyond_the_last_row():
    """Whole tiles in rows an odd number of values apart, which are loaded a turn ahead; the memory ends with them."""
    pytest.importorskip("numpy")
    compiled("-c", BEYOND)
