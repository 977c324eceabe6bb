"""Rows of 16 bits that no 128-bit access divides, on Triton: each launch size of their backward, and two turns of it.

There a program asks for rows a turn ahead, two at a time; the second one of its last turn may lack. Interpreted, four
multiprocessors share the rows.
"""

import pytest
import torch
from common import small

from normkernels import tolerance
from normkernels._backends import unusable
from normkernels.cases import OPS
from normkernels.tolerance import check

CASES = [
    (70, 130),
    (37, 257),
    (71, 513),
    (41, 1025),
    (33, 1285),
    (21, 2047),
    (11, 4097),
    (5, 6145),
    (5, 8193),
    (35, 8705),
]  # rows, columns
UNCENTRED = [(71, 513), (21, 2047), (5, 8193)]
pytestmark = pytest.mark.skipif(unusable("triton", "layer_norm_fwd", "cpu") is not None, reason="not interpreted")


@pytest.mark.parametrize(
    ("op", "rows", "columns"), [("layer_norm", *c) for c in CASES] + [("rms_norm", *c) for c in UNCENTRED]
)
def test_odd_rows(op, rows, columns, monkeypatch):
    monkeypatch.setattr(tolerance, "DRAWS", 1)
    sample = small(OPS[op], rows, columns, added=True)
    wrong = [str(r) for r in check(OPS[op], sample, "triton", torch.bfloat16) if r.worst > 1]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("columns", [257, 4097])
def test_a_row_is_the_same_alone(columns):
    """Whichever of the two of a turn it is."""
    op = OPS["layer_norm"].function
    torch.manual_seed(0)
    x, dy, w = torch.randn(7, columns).bfloat16(), torch.randn(7, columns).bfloat16(), torch.randn(columns)

    def dx(i: slice) -> torch.Tensor:
        given = x[i].clone().requires_grad_()
        op(given, (columns,), w, backend="triton").backward(dy[i])
        return given.grad

    together = dx(slice(7))
    for i in (0, 1, 6):
        assert torch.equal(dx(slice(i, i + 1))[0], together[i])
