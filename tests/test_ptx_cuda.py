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


def gradients(N: int, edit: Edit = str, device: Device = SMALL, rows: int = 3) -> list[torch.Tensor]:
    """y, dx and dweight, through PTX that ``edit`` changed."""
    x = torch.linspace(-2, 3, rows * N).reshape(rows, N).requires_grad_()
    weight = torch.linspace(1, 2, N).requires_grad_()
    with running(("rms_norm",), random.Random(0), edit, device) as launched:
        y = rms_norm(x, (N,), weight, backend="native")
        found = [y, *torch.autograd.grad(y, (x, weight), torch.linspace(0, 1, rows * N).reshape(rows, N))]
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


MEETING = r"barrier\.cluster\.arrive\.release;[^;]*barrier\.cluster\.wait\.acquire;"
TOGETHER = {
    "nobody waits for the others": ("rows_backward", MEETING, "", 1),
    "nobody waits until all have begun": ("rows_backward", r"barrier\.cluster\.wait\.acquire;", "", 1),
    "what is not told": ("rows_backward", r"st\.shared::cluster\.f32[^;]*;", "", 1),
    "columns of the first block": ("rows_backward", r"%cluster_ctarank;", "%cluster_nctaid.y;", 1),
}
EACH = [(1027, fault) for fault in FAULTS] + [(1028, fault) for fault in AHEAD] + [(4100, fault) for fault in TOGETHER]


@pytest.mark.parametrize(("N", "fault"), EACH)
def test_planted_faults_are_found(N, fault):
    edit = changed(*(FAULTS | AHEAD | TOGETHER)[fault])
    many = {"device": Device(132, 8, 50 << 20), "rows": 20} if "sums" in fault else {}  # for warps to add them up
    whole = gradients(N, **many)
    try:
        broken = gradients(N, edit, **many)
    except PTXError:
        return
    assert not all(map(torch.equal, whole, broken)), "not noticed"


@pytest.mark.parametrize("order", [None, random.Random(0)], ids=["lockstep", "random"])
@pytest.mark.parametrize(
    ("N", "capability", "kernel"),
    [(36, 9, "backward"), (1028, 9, "backward"), (4100, 8, "backward"), (4100, 9, "backward"), (8200, 8, "strip")],
    ids=["warp", "block", "full block", "cluster", "strips"],
)
def test_the_next_row_comes_while_one_is_worked_on(N, capability, kernel, order):
    """More rows than the device holds at once, by each of the kernels that ask ahead."""
    device = Device(1, 1, 2**20, capability)
    x, weight, dy = torch.randn(70 if N == 36 else 5, N), torch.randn(N), torch.randn(70 if N == 36 else 5, N)
    found = []
    for backend in ("native", "reference"):
        given = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with running(("rms_norm",), order, device=device) as launched:
            found.append(torch.autograd.grad(rms_norm(given[0], (N,), given[1], backend=backend), given, dy))
        if backend == "native":
            blocks = [max(one.cluster) for one in launched if f"{kernel}_kernel" in one.kernel]
            assert blocks == [4 if (N, capability) == (4100, 9) else 1]
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("capability", [8, 9], ids=["segments", "clusters"])
def test_long_rows_are_shared_out_in_two_launches(capability):
    """Each way, but one forward in clusters, whatever the number of rows; a row of few has its bits among many."""
    x, dy, weight = torch.randn(9, 8203), torch.randn(9, 8203), torch.randn(8203)
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


def test_a_row_of_a_cluster_has_the_bits_that_it_has_among_others():
    """Backward too, in two launches: dx, and the sums over clusters for the weight."""
    x, dy, weight = torch.randn(5, 4100), torch.randn(5, 4100), torch.randn(4100)
    found = []
    for rows, room in ((slice(0, 2), 4), (slice(None), 8)):
        given, w = x[rows].clone().requires_grad_(), weight.clone().requires_grad_()
        with running(("rms_norm",), random.Random(0), device=Device(132, 1, 50 << 20, beside=room)) as launched:
            y = rms_norm(given, (4100,), w, backend="native")
            found.append((y, *torch.autograd.grad(y, (given, w), dy[rows])))
        assert [max(one.cluster) for one in launched] == [1, 4, 1]
    assert all(torch.equal(few, many[:2]) for few, many in zip(found[0][:2], found[1][:2], strict=True))


@pytest.mark.parametrize("beside", [2, 0], ids=["few multiprocessors", "an error"])
def test_a_device_that_has_no_room_for_a_cluster_takes_segments(beside):
    """A slice of a GPU, say; what it answers is no error of the launches that follow."""
    expected = gradients(8204, device=SMALL._replace(capability=8))
    device = SMALL._replace(beside=beside)
    for got, want in zip(gradients(8204, device=device), expected, strict=True):
        assert torch.equal(got, want)


def test_a_launch_too_large_is_an_error():
    with pytest.raises(PTXError, match="a launch that no GPU takes"):
        gradients(4096, lambda ptx: re.sub(r"\.maxntid \d+", ".maxntid 32", ptx))


def test_what_runs_kernels_leaves_the_package_as_it_was():
    backends = importlib.import_module("normkernels._backends")
    before = backends._load
    with pytest.raises(PTXError), running(("rms_norm",)):
        raise PTXError
    assert backends._load is before
