"""Which calls are alike, which are not learnt, and the small ops and launches of a replay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from replays import warm

import normkernels as nk
from normkernels import _replays
from normkernels.functional import batch_norm, layer_norm

pytestmark = pytest.mark.skipif(_replays.extension is None, reason=f"no replays: {_replays.missing}")


def fresh(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A Python of its own, in the root of the source."""
    root = Path(__file__).parents[1]
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=root)


def test_the_key():
    """Whatever steers a call: strides, who wants a gradient, the same tensor twice, numbers, names, the backend."""
    w, b = torch.randn(4), torch.randn(4)
    x, r = torch.randn(4, 4), torch.randn(4, 4)
    calls = [
        lambda f: f(x, (4,), w, b), lambda f: f(x.t(), (4,), w, b), lambda f: f(x, [4], w, b), lambda f: f(x, 4, w, b),
        lambda f: f(x, (4,), w, b, 0.5), lambda f: f(x, (4,), w), lambda f: f(x, (4,), bias=b),
        lambda f: f(x, (4,), w, b, activation="relu"), lambda f: f(x, (4,), w, b, activation="".join(["si", "lu"])),
        lambda f: f(x, (4,), w, b, residual=x)[0], lambda f: f(x, (4,), w, b, residual=r)[0],
        lambda f: f(x, (4,), w, w), lambda f: f(x[1:], (4,), w, b), lambda f: f(x.double(), (4,)),
        lambda f: f(x.requires_grad_(), (4,), w, b), lambda f: f(x, (4,), w.requires_grad_(), b),
    ]  # fmt: skip
    for _ in range(4):
        for call in calls:
            found, expected = call(layer_norm), call(layer_norm.__wrapped__)
            assert torch.equal(found, expected)
            assert found.requires_grad is expected.requires_grad
            x, w = x.detach(), w.detach()
    with nk.use_backend("reference"), pytest.raises(ValueError, match="backend"):
        layer_norm(x, (4,), backend="no such")


BEFORE_ANY_OTHER = """
import sys
import torch
import normkernels as nk

sys.path.append("tests")
from common import Recorder
from replays import replayed, warm
x = torch.randn(3, 8, requires_grad=True)
for _ in range(4):
    with Recorder() as recorder:
        nk.functional.layer_norm(x, 8)
    assert len(recorder.calls) == 1, recorder.calls
assert replayed(warm(nk.LayerNorm(8), x))
"""


def test_a_mode_around_the_first_call_of_a_process():
    """It sees every call, and calls outside of it are replayed."""
    done = fresh(["-c", BEFORE_ANY_OTHER], dict(os.environ))
    assert done.returncode == 0, done.stderr


def test_what_is_negated_when_it_is_read():
    """torch's lazy negation: the memory of such a tensor does not hold its numbers."""
    x, found = torch.randn(5, 4), []
    for public in (batch_norm, batch_norm.__wrapped__):
        mean = torch.arange(4).to(torch.complex64).mul(1j).conj().imag
        assert mean.is_neg()
        var = torch.ones(4)
        found.append([*(public(x, mean, var, training=True) for _ in range(6)), mean, var])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_failed_calls_stay_failed():
    module = nk.BatchNorm1d(4)
    warm(module, torch.randn(5, 4, requires_grad=True))
    before = module.running_mean.clone()
    for _ in range(4):
        with pytest.raises(ValueError, match="more than one value per channel"):
            module(torch.randn(1, 4))
    assert torch.equal(module.running_mean, before)


def test_numbers_that_change_are_not_learnt():
    """A cumulative average weighs each batch anew: no plan serves twice, so none is made."""
    made = []
    record = _replays.record
    module = nk.BatchNorm1d(4, momentum=None)
    try:
        _replays.record = lambda *args: made.append(1) or record(*args)
        for _ in range(20):
            module(torch.randn(5, 4))
    finally:
        _replays.record = record
    assert not made
    assert int(module.num_batches_tracked) == 20


SMALL = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "lerp": lambda a, b: torch.lerp(a, b, 0.3),
    "lerp from the end": lambda a, b: torch.lerp(a, b, 0.9),
    "clamp": lambda a, b: a.clamp(-0.5, 0.5),
    "abs": lambda a, b: a.abs(),
    "where": lambda a, b: torch.where(a < b, a, b),
    "where again": lambda a, b: torch.where(a < b, torch.stack([a, b]), a),
    "gt": lambda a, b: torch.where(a > b, a, b),
    "clone": lambda a, b: a.clone(),
    "convert": lambda a, b: (a - b).to(torch.float64) + (a * b).to(torch.float32),
    "view of one that goes": lambda a, b: (a + b)[:1] * (a - b)[-1:] + b,
    "in place": lambda a, b: (a * 2).add_(b).mul_(a),
    "alpha": lambda a, b: torch.add(a, b, alpha=2),
    "rounding": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "broadcast": lambda a, b: (a[:, None] + b[:1]) * a[:, None],
    "numbers": lambda a, b: (a * 1.1 - 0.3) / 0.7 + 2,
}


@pytest.mark.parametrize("op", SMALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_small_ops(op, dtype):
    """Those that the extension does itself, to the bit as torch; with what is not finite."""
    calls = _replays.calls()
    for n in (1, 2, 7, 8, 15, 16, 33, 128):
        for seed in range(4):
            torch.manual_seed(seed)
            given = torch.randn(n, dtype=dtype), torch.randn(n, dtype=dtype)
            if seed == 3:
                given[0][0] = float("nan")
                given[1][-1] = float("inf")
            expected = SMALL[op](*given)
            found = _replays.replay(calls, None, given, {})
            if isinstance(found, bytes):
                found = _replays.record(calls, found, SMALL[op], given, {})
            if found is not None:
                assert found.dtype == expected.dtype
                assert torch.equal(found.nan_to_num(), expected.nan_to_num())
                assert torch.equal(found.isnan(), expected.isnan())
    assert found is not None


def test_without_the_extension():
    code = (
        "import torch, normkernels as nk; from normkernels import _replays; nk.LayerNorm(4)(torch.randn(2, 4)); "
        "print(_replays.missing)"
    )
    done = fresh(["-c", code], os.environ | {"NORMKERNELS_REPLAY": "0"})
    assert "switched off" in done.stdout, done.stderr


def test_launches():
    """Of Triton's kernels a replay makes the same launches, with the same arguments; seen without a GPU."""
    done = fresh(["-m", "tests.fake_launches"], {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"})
    assert done.returncode == 0, done.stdout + done.stderr
