"""The PTX of every Triton op run on CPU tensors, and barriers removed from a compiled kernel, found.

The suite's own process interprets Triton, so what compiles runs in another one.
"""

import json
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


PLANTED = """
import json, random, re, sys, torch
from normkernels.cases import OPS
from normkernels.tolerance import check
from tests.ptx.launch import running
from tests.ptx.memory import PTXError
stem, shape, faults = sys.argv[1], tuple(map(int, sys.argv[2].split("x"))), json.loads(sys.argv[3])
op = OPS[stem]
def found(kernel, old, new, count):
    planted, sample = [], op.make(shape, torch.float64)  # others each time: what nobody writes may be an earlier sum
    def edit(ptx):
        if f".entry {kernel}(" not in ptx:
            return ptx
        at = [m.span() for m in re.finditer(old, ptx)][slice(*count)]
        planted.extend(at)
        for start, end in reversed(at):
            ptx = ptx[:start] + re.sub(old, new, ptx[start:end]) + ptx[end:]
        return ptx
    try:
        with running(random.Random(0), edit):
            reports = check(op, sample, "triton", torch.float32)
    except PTXError:
        return True
    assert planted or not kernel, f"no {old} in {kernel}"
    return not max(report.worst for report in reports) <= 1
assert not found("", "", "", [0])
print(*(name for name, fault in faults.items() if not found(*fault)), sep="; ")
"""
BARRIER, STORE, BEYOND = r"bar\.sync[^;]*;", r"@%p\d+ st\.global[^;]*;", r"setp\.gt\.s64"
FAULTS = {  # of which kernel, what there becomes what, and the slice of all such places
    ("layer_norm", "3x1000"): {
        "barriers of forward removed": ("rows_forward_kernel", BARRIER, "", [None]),
        "one barrier of forward removed": ("rows_forward_kernel", BARRIER, "", [1]),
        "a mask of forward off by one, of columns": ("rows_forward_kernel", r"setp\.lt\.s32", "setp.le.s32", [None]),
        "a mask of forward off by one, of rows": ("rows_forward_kernel", r"setp\.lt\.s64", "setp.le.s64", [None]),
        "barriers of backward removed": ("rows_backward_kernel", BARRIER, "", [None]),
        "a mask of backward off by one": ("rows_backward_kernel", r"setp\.lt\.s32", "setp.le.s32", [None]),
        "a partial sum of backward that nobody writes": ("rows_backward_kernel", STORE, "", [-1, None]),
        "barriers of the sums removed": ("partial_sums_kernel", BARRIER, "", [None]),
    },
    ("batch_norm", "2x1x65x65"): {
        "barriers of the moments removed": ("channels_moments_kernel", BARRIER, "", [None]),
        "a mask of the moments off by one": ("channels_moments_kernel", BEYOND, "setp.ge.s64", [None]),
        "a partial sum of forward that nobody writes": ("channels_moments_kernel", STORE, "", [1]),
        "a mask of forward off by one": ("channels_merge_apply_kernel", BEYOND, "setp.ge.s64", [None]),
        "barriers of backward removed": ("channels_sums_kernel", BARRIER, "", [None]),
        "a mask of the sums off by one": ("channels_sums_kernel", BEYOND, "setp.ge.s64", [None]),
        "a partial sum of backward that nobody writes": ("channels_sums_kernel", STORE, "", [-1, None]),
        "a mask of backward off by one": ("channels_merge_dx_kernel", BEYOND, "setp.ge.s64", [None]),
    },
}


@pytest.mark.parametrize(("op", "shape"), FAULTS)
def test_faults_planted_in_compiled_kernels_are_found(op, shape):
    """By the tolerance, or where memory is read that is not there or that nobody wrote."""
    assert compiled("-c", PLANTED, op, shape, json.dumps(FAULTS[op, shape])).strip() == ""


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
