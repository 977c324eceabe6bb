"""The native ops as an exported program or a C++ server calls them: what is wrong raises, and nothing crashes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from common import kernels

from normkernels._backends import unusable
from normkernels.cases import OPS

FUZZ = Path(__file__).parent / "fuzz_native.py"
CALLS = os.environ.get("NORMKERNELS_FUZZ_CALLS", "200")  # of each op
BATCHES = [list(OPS)[i::2] for i in range(2)]  # a crash ends the process of one

pytestmark = pytest.mark.skipif(
    any(unusable("native", kernel, "cpu") for op in OPS.values() for kernel in kernels(op)),
    reason="the extension normkernels._C is not built",
)


@pytest.mark.parametrize("stems", BATCHES, ids="-".join)
def test_almost_valid_calls(stems, tmp_path):
    """Valid calls pass; with one or two arguments wrong they raise or return, and write nothing beyond results."""
    log = tmp_path / "call.txt"
    command = [sys.executable, str(FUZZ), "--calls", CALLS, "--log", str(log), *stems]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, f"exit status {done.returncode}: {log.read_text().strip()}\n{done.stderr[-2000:]}"
    fuzzed = {line.split(":")[0] for line in done.stdout.splitlines()}
    assert fuzzed >= {kernel for stem in stems for kernel in kernels(OPS[stem])}


def ops():
    return torch.ops.normkernels_C


def rows(**changes):
    """layer_norm_fwd on (3, 4) with some arguments replaced."""
    x = torch.randn(3, 4)
    given = {"x": x, "residual": None, "weight": torch.ones(4), "bias": None, "gate": None}
    given |= {"y": torch.empty(3, 4), "summed": None, "mean": torch.empty(3), "rstd": torch.empty(3)}
    given |= {"eps": 1e-5, "weight_offset": 0.0, "activation": "identity", "slope": 0.0} | changes
    ops().layer_norm_fwd(**given)
    return given


def sequence(**changes):
    """layer_norm_rnn_fwd over steps of 2, 2 and 1 rows of 4 columns, with some arguments replaced."""
    given = {"input": torch.randn(5, 4), "weight_hh": torch.randn(4, 4), "weight": None, "bias": None}
    given |= {"batch_sizes": torch.tensor([2, 2, 1]), "h": torch.zeros(2, 4), "y": torch.empty(5, 4)}
    given |= {"a": torch.empty(5, 4), "mean": torch.empty(5, 1), "rstd": torch.empty(5, 1), "separate": True}
    given |= {"nonlinearity": "tanh", "eps": 1e-5, "reverse": False} | changes
    ops().layer_norm_rnn_fwd(**given)
    return given


SHARED = torch.randn(3, 4)
WRONG = {
    "rank": (rows, {"x": torch.randn(4)}, r"x must have 2 to 4 dimensions, got shape \(4,\)"),
    "shape": (rows, {"y": torch.empty(2, 4)}, r"y must have shape \(3, 4\), got \(2, 4\)"),
    "rows": (rows, {"x": torch.randn(2, 2, 4)}, r"y must have shape \(4, 4\), got \(3, 4\)"),
    "rows-read": (rows, {"residual": torch.randn(2, 2, 4)}, r"residual must have shape \(3, 4\), got \(2, 2, 4\)"),
    "dtype-first": (rows, {"x": torch.ones(3, 4).int()}, "x must be float64, float32, bfloat16 or float16"),
    "dtype": (rows, {"y": torch.empty(3, 4).half()}, "y must have the dtype of x"),
    "dtype-parameter": (rows, {"weight": torch.ones(4).double()}, "weight must have the dtype of x, or float32 beside"),
    "dtype-statistic": (rows, {"mean": torch.empty(3).half()}, "mean must be float32, or float64 where x is"),
    "columns": (rows, {"x": torch.randn(4, 3).t()}, "x must have adjacent columns"),
    "columns-runs": (rows, {"x": torch.randn(4, 1, 3).transpose(0, 2)}, "x must have adjacent columns"),
    "layout": (rows, {"y": torch.empty(4, 3).t()}, "y must be contiguous"),
    "expanded": (rows, {"mean": torch.empty(1).expand(3)}, "mean must be contiguous"),
    "overlap": (rows, {"x": SHARED, "y": SHARED}, "y must share no memory with x"),
    "pair": (rows, {"residual": torch.randn(3, 4)}, "summed must be given where residual is, and only there"),
    "activation": (rows, {"activation": "swish"}, "activation must be a name of ACTIVATIONS, got 'swish'"),
    "sizes-order": (sequence, {"batch_sizes": torch.tensor([2, 1, 2])}, "batch_sizes must be positive and not"),
    "sizes-negative": (sequence, {"batch_sizes": torch.tensor([2, -1, 4])}, "batch_sizes must be positive"),
    "sizes-sum": (sequence, {"batch_sizes": torch.tensor([2, 2])}, "batch_sizes must add up to the rows"),
    "sizes-first": (sequence, {"batch_sizes": torch.tensor([3, 2])}, "batch_sizes must begin with the rows"),
    "sizes-dtype": (sequence, {"batch_sizes": torch.tensor([2.0])}, r"batch_sizes must be contiguous int64 \(T,\)"),
    "kept": (sequence, {"a": torch.empty(3, 4)}, "a must have the rows of all steps, or of one"),
    "kept-apart": (sequence, {"mean": torch.empty(2, 1)}, r"mean must have shape \(5, 1\), got \(2, 1\)"),
    "nonlinearity": (sequence, {"nonlinearity": "relu6"}, "nonlinearity must be tanh or relu"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_argument(wrong):
    """One line that names the op, the argument and the rule."""
    call, changes, message = WRONG[wrong]
    call()
    with pytest.raises(RuntimeError, match=message):
        call(**changes)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_nothing_to_compute(shape):
    """Of nothing every result is 0, as torch's sums are; no kernel runs."""
    given = rows(
        x=torch.empty(shape), weight=None, y=torch.empty(shape), mean=torch.ones(shape[0]), rstd=torch.ones(shape[0])
    )
    assert not given["mean"].any()
    assert not given["rstd"].any()


def test_what_may_share_memory():
    """NormProp's y may be u, and layers that share a weight name it twice."""
    u, y = torch.randn(2, 3, 4), torch.empty(2, 3, 4)
    inf, settings = float("inf"), ("relu", 0.0, 1.0, 0.0)
    for out in (y, u):
        ops().normprop_fwd(u, None, None, out, *settings, -inf, inf, -inf, inf, False)
    assert torch.equal(u, y)
    weight = torch.randn(3, 4)
    ops().weight_norm_project([weight, torch.randn(2, 2), weight])
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3))
    with pytest.raises(RuntimeError, match="weights must share no memory"):
        ops().weight_norm_project([weight, weight[1:]])
