"""A call leaves no memory behind: no string, no node, no buffer, however often it is made."""

import ctypes
import gc

import pytest
import torch
from common import call, leaves

from normkernels.cases import OPS

CALLS = 100  # more than the 64 without a graph that a state remembers
BYTES = 16  # a call may leave: a list that grows, now and then; the smallest block that malloc gives is 32


class Info(ctypes.Structure):
    """struct mallinfo2"""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keep".split()
    ]


def allocated() -> int:
    """Bytes that malloc has given and nobody has freed."""
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Info
    info = mallinfo2()
    return info.uordblks + info.hblkhd


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 counts what it gives")
@pytest.mark.parametrize("replays", [True, False], ids=["replayed", "by Python"])
@pytest.mark.parametrize("backward", [True, False], ids=["step", "forward"])
@pytest.mark.parametrize("op", OPS.values(), ids=str)
def test_nothing_stays(op, backward, replays, monkeypatch):
    if not replays:
        monkeypatch.setattr("normkernels._replays.replay", lambda *_: None)
    sample = op.samples[0]
    given = leaves(op, sample) if backward else sample.present()

    def step():
        with torch.set_grad_enabled(backward):
            found = call(op, sample, "native", **given)
        if backward:
            outputs = found if isinstance(found, tuple) else (found,)
            torch.autograd.grad(outputs[: len(sample.cotangents)], list(given.values()), sample.cotangents)

    for _ in range(CALLS):  # until everything that is kept is there
        step()
    before = allocated()
    for _ in range(CALLS):
        step()
    assert allocated() - before < BYTES * CALLS
