"""The PTX of every Triton op run on CPU tensors, and barriers removed from a compiled kernel, found.

The suite's own process interprets Triton, so what compiles runs in another one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")

from normkernels.cases import OPS

ROOT = Path(__file__).parents[1]


def compiled(*args: str, **more: str) -> str:
    """``python`` where Triton compiles, with ``more`` in its environment; what it prints, and fails with it."""
    pytest.importorskip("triton")
    env = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "NORMKERNELS_BACKEND")} | more
    done = subprocess.run([sys.executable, *args], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("first", "dtype"), [(0, "float32"), (1, "bfloat16")])
def test_ops_compiled_are_within_their_tolerance(first, dtype):
    """A sample of each op in one dtype or the other, warps in random order; the command runs more of them."""
    ops = list(OPS)[first::2]
    printed = compiled("-m", "tests.ptx", "--samples", "1", "--order", "random", "--dtype", dtype, *ops)
    assert len(printed.splitlines()) == 1 + len(ops)


BARRIERS = """
import random, re, torch
from tests.ptx.launch import running
from tests.ptx.memory import PTXError
from triton.runtime.jit import JITFunction
import normkernels as nk
before = JITFunction.run
x = torch.randn(3, 4099)
def call(edit):
    with running(random.Random(0), edit) as launched:
        y = nk.functional.rms_norm(x, (4099,), backend="triton")
    assert launched
    return y
whole = call(str)
torch.testing.assert_close(whole, torch.nn.functional.rms_norm(x, (4099,)))
try:
    broken = call(lambda ptx: re.sub(r"bar\\.sync[^;]*;|barrier\\.sync[^;]*;", "", ptx))
except PTXError as error:
    print(error)
else:
    print("differs" if not torch.equal(whole, broken) else "not noticed")
assert JITFunction.run is before, "not undone"
"""


def test_barriers_removed_from_a_compiled_kernel_are_found():
    """Those of a real kernel, and what runs PTX leaves the package as it was."""
    printed = compiled("-c", BARRIERS)
    assert "nobody wrote" in printed or "differs" in printed


MERGED = """
import random, sys, torch
from normkernels.cases import OPS
from normkernels.tolerance import check
from tests.ptx.launch import running
op, dtype, shapes = OPS[sys.argv[1]], getattr(torch, sys.argv[2]), sys.argv[3:]
torch.manual_seed(0)
for i, shape in enumerate(shapes):
    sizes, _, last = shape.partition(":")
    more = {"skip": True, "activation": "silu"} if i % 2 else {}
    groups = {"num_groups": 2} if op.stem == "group_norm" else {}
    sample = op.make(tuple(map(int, sizes.split("x"))), torch.float64, channels_last=bool(last), **more, **groups)
    with running(random.Random(i) if i else None) as launched:
        reports = check(op, sample, "triton", dtype)
    names = {one.kernel for one in launched}
    assert "channels_merge_apply_kernel" in names, shape
    assert ("channels_merge_dx_kernel" in names) == (op.stem == "batch_norm"), shape
    for report in reports:
        assert report.worst <= 1, f"{shape}: {report}"
"""
MERGING = [
    ("batch_norm", "float32", "4x2x90x91", "1x33x36x36:last"),
    ("batch_norm", "bfloat16", "2x20x30x30:last"),
    ("group_norm", "float32", "1x12x40x40:last"),
    ("group_norm", "bfloat16", "2x6x61x61", "2x34x24x24:last"),
    ("instance_norm", "float32", "1x33x26x26:last"),
    ("instance_norm", "bfloat16", "2x2x91x91"),
]


@pytest.mark.parametrize("call", MERGING, ids="-".join)
def test_partial_results_that_are_merged_where_applied(call):
    """One tile of a program and several, tiles that several statistics share, skip and activation."""
    compiled("-c", MERGED, *call)


ALONE = """
import random, sys, torch
import normkernels.functional as nf
from tests.ptx.launch import running
op, shape, last = sys.argv[1], tuple(map(int, sys.argv[2].split("x"))), sys.argv[3] == "last"
function = (lambda *a: nf.group_norm(a[0], 2, *a[1:], backend="triton")) if op == "group_norm" else (
    lambda *a: nf.instance_norm(a[0], weight=a[1], bias=a[2], backend="triton")
)
torch.manual_seed(0)
x, dy = torch.randn(2, *shape), torch.randn(2, *shape)
if last:
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
found = []
for images in (slice(0, 1), slice(None)):
    given = [x[images].clone().requires_grad_(), *(torch.ones(shape[0], requires_grad=True) for _ in range(2))]
    with running(random.Random(0)) as launched:
        y = function(*given)
        found.append((y[0], torch.autograd.grad(y, given, dy[images])[0][0]))
    assert "channels_dx_kernel" in [one.kernel for one in launched]
assert torch.equal(found[0][0], found[1][0]), "y"
assert torch.equal(found[0][1], found[1][1]), "dx"
"""


@pytest.mark.parametrize(
    ("op", "shape", "layout"),
    [("group_norm", "6x61x61", "planes"), ("group_norm", "12x40x40", "last"), ("instance_norm", "33x26x26", "last")],
)
def test_an_image_alone_has_the_bits_that_it_has_among_others(op, shape, layout):
    """Compiled: warps and tiles, which choose the order of sums, are the image's own."""
    compiled("-c", ALONE, op, shape, layout)
