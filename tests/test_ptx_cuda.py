"""The CUDA kernels' own host code launches their PTX, on a machine without a GPU; faults planted in either are found.

The kernels of one op are compiled here, and kept; ``python -m tests.ptx --backend native`` runs those of all.
"""

import importlib
import random
import re

import pytest

pytest.importorskip("numpy")

import torch

from normkernels.cases import OPS
from normkernels.functional import rms_norm
from normkernels.tolerance import check
from tests.ptx import build
from tests.ptx.cuda import SMALL, Device, running
from tests.ptx.launch import Edit
from tests.ptx.memory import PTXError

pytestmark = pytest.mark.skipif(build.nvcc() is None, reason="needs nvcc")
SAMPLES = [s for s in OPS["rms_norm"].samples if not s.big and s.tensors["input"].numel()][::8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_cuda_kernels_are_within_their_tolerance(sample, dtype):
    with running(("rms_norm",), random.Random(0)) as launched:
        reports = check(OPS["rms_norm"], sample, "native", dtype)
    assert launched
    assert not [str(r) for r in reports if r.worst > 1]


def gradients(N: int, edit: Edit = str, device: Device = SMALL) -> list[torch.Tensor]:
    """y, dx and dweight of three rows, through PTX that ``edit`` changed."""
    x = torch.linspace(-2, 3, 3 * N).reshape(3, N).requires_grad_()
    weight = torch.linspace(1, 2, N).requires_grad_()
    with running(("rms_norm",), random.Random(0), edit, device) as launched:
        y = rms_norm(x, (N,), weight, backend="native")
        found = [y, *torch.autograd.grad(y, (x, weight), torch.linspace(0, 1, 3 * N).reshape(3, N))]
    assert launched
    return found


def changed(kernel: str, old: str, new: str, count: int = 0):
    """``old``, a pattern, is ``new`` in every kernel of that name; it is an error if none has it."""

    def edit(ptx: str) -> str:
        if not re.search(rf"\.entry \w*{kernel}", ptx):
            return ptx
        edited, found = re.subn(old, new, ptx, count=count)
        assert found, f"no {old} in {kernel}"
        return edited

    return edit


@pytest.mark.parametrize("device", [SMALL, Device(132, 8, 50 << 20)], ids=str)
@pytest.mark.parametrize("N", [33, 1028])
def test_every_device_gives_the_same(N, device):
    """Few multiprocessors loop over the rows and their waves, many hold all of them at once."""
    expected = gradients(N, device=Device(1, 1, 2**16))
    for got, want in zip(gradients(N, device=device), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


FAULTS = {
    "a barrier removed": ("rows_forward", r"bar\.sync[^;]*;", "", 0),
    "a barrier removed from the sums": ("line_sums", r"bar\.sync[^;]*;", "", 0),
    "a barrier that some skip": ("rows_forward", r"bar\.sync[^;]*;", "@%p1 ret; bar.sync 0;", 1),
    "a mask off by one": ("rows_forward", r"setp\.ge\.s32", "setp.gt.s32", 0),
    "a mask of backward off by one": ("rows_backward", r"setp\.ge\.s32", "setp.gt.s32", 0),
    "a partial that nobody writes": ("rows_backward", r"(@!?%p\d+ )?st\.global\.f32\s+\[[^;]*;", "", 0),
    "a misaligned load": ("rows_forward", r"ld\.global\.f32\s+(%f\d+), \[(%rd\d+)\]", r"ld.global.f32 \1, [\2+2]", 1),
    "a row too far": ("rows_forward", r"mov\.u32\s+(%r\d+), %ctaid\.x;", r"mov.u32 \1, %nctaid.x;", 1),
}


AHEAD = {
    "a wait removed": ("rows_backward", r"cp\.async\.wait_group[^;]*;", "", 0),
    "a wait for all rows but one": ("rows_backward", r"cp\.async\.wait_group 0;", "cp.async.wait_group 1;", 0),
    "half of what is asked for": ("rows_backward", r"\], 16, 16;", "], 16, 8;", 0),
    "a request left out": ("rows_backward", r"cp\.async\.cg[^;]*;", "", 1),
}


@pytest.mark.parametrize(("N", "fault"), [(1027, fault) for fault in FAULTS] + [(1028, fault) for fault in AHEAD])
def test_planted_faults_are_found(N, fault):
    edit = changed(*(FAULTS | AHEAD)[fault])
    whole = gradients(N)
    try:
        broken = gradients(N, edit)
    except PTXError:
        return
    assert not all(map(torch.equal, whole, broken)), "not noticed"


@pytest.mark.parametrize("order", [None, random.Random(0)], ids=["lockstep", "random"])
@pytest.mark.parametrize("N", [36, 1028, 4100, 8200], ids=["warp", "block", "full block", "segments"])
def test_the_next_row_comes_while_one_is_worked_on(N, order):
    """More rows than the device holds at once, by each of the kernels that ask ahead."""
    x, weight, dy = torch.randn(70 if N == 36 else 5, N), torch.randn(N), torch.randn(70 if N == 36 else 5, N)
    found = []
    for backend in ("native", "reference"):
        given = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with running(("rms_norm",), order, device=Device(1, 1, 2**20)) as launched:
            found.append(torch.autograd.grad(rms_norm(given[0], (N,), given[1], backend=backend), given, dy))
        if backend == "native":
            names = [one.kernel for one in launched]
            assert any(("strip" if N == 8200 else "rows_backward_kernel") in name for name in names)
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("capability", [8, 9], ids=["segments", "clusters"])
def test_long_rows_are_shared_out_in_two_launches(capability):
    """Each way, but one forward in clusters, whatever the number of rows; a row of few has its bits among many."""
    x, dy, weight = torch.randn(17, 8203), torch.randn(17, 8203), torch.randn(8203)
    found = []
    for rows in (slice(0, 1), slice(0, 3), slice(None)):
        given, w = x[rows].clone().requires_grad_(), weight.clone().requires_grad_()
        with running(("rms_norm",), random.Random(0), device=Device(132, 8, 50 << 20, capability)) as launched:
            y = rms_norm(given, (8203,), w, backend="native")
            assert [max(one.cluster) for one in launched] == ([4] if capability == 9 else [1, 1])
            found.append((y, *torch.autograd.grad(y, (given, w), dy[rows])))
        assert [max(one.cluster) for one in launched[-2:]] == [1, 1]
        assert len(launched) == (3 if capability == 9 else 4)
    whole = found[-1]
    for y, dx, _ in found:
        assert torch.equal(y, whole[0][: len(y)])
        assert torch.equal(dx, whole[1][: len(dx)])
    given = x.clone().requires_grad_()
    expected = torch.autograd.grad(rms_norm(given, (8203,), weight, backend="reference"), given, dy)[0]
    torch.testing.assert_close(whole[1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("N", [16385, 33000])
def test_a_cluster_that_holds_a_row_is_within_its_tolerance(N, dtype):
    """Blocks whose last one has few values or, where a cluster is as large as it may be, none."""
    sample = OPS["rms_norm"].make((2, N), torch.float64, "cpu", residual=True, activation="silu")
    with running(("rms_norm",), random.Random(0)) as launched:
        reports = check(OPS["rms_norm"], sample, "native", dtype)
    assert max(launched[0].cluster) in (4, 8)
    assert not [str(r) for r in reports if r.worst > 1]


def test_a_launch_too_large_is_an_error():
    with pytest.raises(PTXError, match="a launch that no GPU takes"):
        gradients(4096, lambda ptx: re.sub(r"\.maxntid \d+", ".maxntid 32", ptx))


def test_what_runs_kernels_leaves_the_package_as_it_was():
    backends = importlib.import_module("normkernels._backends")
    before = backends._load
    with pytest.raises(PTXError), running(("rms_norm",)):
        raise PTXError
    assert backends._load is before
