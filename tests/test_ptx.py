"""The interpreter of PTX: a kernel of a few lines, instructions that have a trap, and faults, each found."""

import random

import pytest

pytest.importorskip("numpy")

import numpy as np
from ptx.grid import packed, run
from ptx.memory import Memory, PTXError
from ptx.parser import parse

THREADS = 128

# y[i] = x[i] + x of the same lane of the next warp, by way of shared memory; threads beyond N load and store nothing
SUM = """
.visible .entry neighbours(.param .u64 .ptr .global .align 1 X, .param .u64 .ptr .global .align 1 Y, .param .u32 N)
{
	.reg .pred %p<4>;
	.reg .b32 %r<10>;
	.reg .b64 %rd<5>;
	.shared .align 16 .b8 smem[512];
	ld.param.b64 %rd1, [X];
	ld.param.b64 %rd2, [Y];
	ld.param.b32 %r1, [N];
	mov.u32 %r2, %tid.x;
	setp.lt.s32 %p1, %r2, %r1;
	mul.wide.s32 %rd3, %r2, 4;
	add.s64 %rd1, %rd1, %rd3;
	add.s64 %rd2, %rd2, %rd3;
	mov.b32 %r3, 0;
	@%p1 ld.global.b32 %r3, [%rd1];
	shl.b32 %r4, %r2, 2;
	mov.b32 %r5, smem;
	add.s32 %r6, %r5, %r4;
	st.shared.b32 [%r6], %r3;
	bar.sync 0;
	add.s32 %r7, %r4, 128;
	and.b32 %r7, %r7, 511;
	add.s32 %r7, %r5, %r7;
	ld.shared.b32 %r8, [%r7];
	add.f32 %r9, %r3, %r8;
	@%p1 st.global.b32 [%rd2], %r9;
	ret;
}
"""


def launch(ptx: str, N: int, order: random.Random | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(y, what it should be)."""
    x = np.arange(N, dtype=np.float32)
    memory = Memory(2**14, "global")
    at, y = memory.allocate(x.nbytes, x.view(np.uint8)), memory.allocate(x.nbytes)
    kernel = parse(ptx)
    run(kernel, memory, packed(kernel, [at, y, N]), (1, 1, 1), (THREADS, 1, 1), order=order)
    padded = np.pad(x, (0, THREADS - N))
    return memory.bytes[y : y + x.nbytes].view(np.float32), (padded + np.roll(padded, -32))[:N]


@pytest.mark.parametrize("order", [None, random.Random(0)], ids=["lockstep", "random"])
@pytest.mark.parametrize("N", [1, 33, 127, 128])
def test_a_right_kernel_runs(N, order):
    got, want = launch(SUM, N, order)
    assert (got == want).all()


@pytest.mark.parametrize(
    ("instruction", "want"),
    [
        ("bfe.s32 %r9, 8, 3, 1", 2**32 - 1),
        ("bfe.u32 %r9, 8, 3, 1", 1),
        ("selp.b32 %r9, 5, 6, %p0", 5),
        ("prmt.b32 %r9, 33023, 0, 0x7701U", 0xFF80),
        ("shf.l.wrap.b32 %r9, 0xc0000001, 5, 34", 0x17),
        ("shf.r.wrap.b32 %r9, 0xc0000001, 5, 34", 0x70000000),
        ("shr.s32 %r9, -8, 40", 2**32 - 1),
        ("div.s32 %r9, -7, 2", 2**32 - 3),
        ("fma.rn.f32.bf16 %r9, 0x4000, 0x4040, 0f3F800000", 0x40E00000),
        ("sub.f32.bf16 %r9, 0x4000, 0f3F800000", 0x3F800000),
        ("add.bf16x2 %r9, 0x3F804000, 0x3F803F80", 0x40004040),
        ("add.f32x2 %rd3, 0x3F80000040000000, 0x3F8000003F800000; mov.b64 {%r8, %r9}, %rd3", 0x40000000),
        ("cvt.sat.f32.f32 %r9, 0f40000000", 0x3F800000),
        ("fma.rm.f32 %r9, 0f3F800000, 0f3F800000, 0f33000000", 0x3F800000),
        ("add.rz.f32 %r9, 0fBF800000, 0fB3400000", 0xBF800001 - 1),
        ("setp.gt.bf16x2 %p2|%p3, 0x3f80bf80, 0; selp.b32 %r9, 5, 6, %p2", 6),
        ("setp.gt.bf16x2 %p3|%p2, 0x3f80bf80, 0; selp.b32 %r9, 5, 6, %p2", 5),
    ],
)
def test_instructions_that_have_a_trap(instruction, want):
    """Signs, halves, bytes and predicates: %p0 is true, as -1."""
    got, _ = launch(changed("add.f32 %r9, %r3, %r8;", f"mov.pred %p0, -1;\n\t{instruction};"), 33)
    assert (got.view(np.uint32) == want).all()


def changed(old: str, new: str) -> str:
    assert SUM.count(old) == 1
    return SUM.replace(old, new)


DIVERGED = """mov.b32 %r9, 0;
	and.b32 %r7, %r2, 1;
	setp.eq.s32 %p2, %r7, 0;
	@%p2 bra $EVEN;
$JOIN:
	shfl.sync.bfly.b32 %r8, %r2, 1, 31, -1;
	cvt.rn.f32.u32 %r9, %r8;
	@%p1 st.global.b32 [%rd2], %r9;
	ret;
$EVEN:
	add.s32 %r2, %r2, 100;
	bra $JOIN;
"""


@pytest.mark.parametrize("order", [None, random.Random(0)], ids=["lockstep", "random"])
def test_a_shuffle_waits_for_lanes_that_went_another_way(order):
    """The block that half of them take lies behind the shuffle."""
    head, _, _ = SUM.partition("mov.b32 %r5, smem;")
    got, _ = launch(head + DIVERGED + "ret;\n}", THREADS, order)
    lanes = np.arange(THREADS)
    assert (got == np.where(lanes % 2 == 0, lanes + 1, lanes - 1 + 100)).all()


def test_a_shuffle_with_lanes_that_never_come_is_found():
    head, _, _ = SUM.partition("mov.b32 %r5, smem;")
    with pytest.raises(PTXError, match="shuffle from a thread that is elsewhere"):
        launch(head + DIVERGED.replace("bra $JOIN", "ret") + "ret;\n}", THREADS)


def test_a_barrier_removed_is_found():
    """A warp reads what another has not written yet; in lockstep nothing shows, as on a GPU that is lucky."""
    broken = changed("bar.sync 0;", "")
    launch(broken, THREADS)
    with pytest.raises(PTXError, match="read of shared memory that nobody wrote"):
        launch(broken, THREADS, random.Random(0))


def test_a_barrier_that_some_skip_is_found():
    with pytest.raises(PTXError, match="barrier that some threads never reach"):
        launch(changed("bar.sync 0;", "@!%p1 ret;\n\tbar.sync 0;"), 33, random.Random(0))


def test_a_mask_off_by_one_is_found():
    """N is a multiple of what nothing pads to, so the next element is nobody's."""
    with pytest.raises(PTXError, match=r"global memory out of bounds: @%p1 ld\.global"):
        launch(changed("setp.lt.s32", "setp.le.s32"), 33)


def test_no_mask_is_found():
    with pytest.raises(PTXError, match=r"out of bounds: st\.global"):
        launch(changed("@%p1 st.global", "st.global"), 33)


def test_an_uninitialised_partial_is_found():
    """Only the threads within N write their partial, and all are read."""
    with pytest.raises(PTXError, match="read of shared memory that nobody wrote"):
        launch(changed("st.shared", "@%p1 st.shared"), 33)


# x comes to shared memory as a copy that runs beside the threads
COPIED = (
    "add.s32 %r6, %r5, %r4;\n\tst.shared.b32 [%r6], %r3;",
    "add.s32 %r6, %r5, %r4;\n\t@!%p1 st.shared.b32 [%r6], %r3;\n\t"
    "@%p1 cp.async.ca.shared.global [%r6], [%rd1], 4, 4;\n\tcp.async.commit_group;\n\tcp.async.wait_group 0;",
)


@pytest.mark.parametrize("order", [None, random.Random(0)], ids=["lockstep", "random"])
def test_a_copy_runs_beside_the_threads(order):
    got, want = launch(changed(*COPIED), 33, order)
    assert (got == want).all()


@pytest.mark.parametrize("wait", ["", "cp.async.wait_group 1;"])
def test_a_copy_that_is_read_on_its_way_is_found(wait):
    """Even where values lie there that were right before."""
    broken = changed(*COPIED).replace("@!%p1 st.shared", "st.shared").replace("cp.async.wait_group 0;", wait)
    with pytest.raises(PTXError, match="read of shared memory that nobody wrote"):
        launch(broken, 33)


def test_an_array_as_large_as_the_launch_says_lies_behind_the_others():
    ptx = ".extern .shared .align 16 .b8 more[];\n" + SUM.replace("smem[512]", "smem[500]")
    assert parse(ptx).shared == {"smem": 0, "more": 512}


def test_a_workspace_that_nobody_filled_is_found():
    with pytest.raises(PTXError, match="read of global memory that nobody wrote"):
        launch(changed("ld.global.b32 %r3, [%rd1]", "ld.global.b32 %r3, [%rd2]"), 33)


def test_misaligned_is_found():
    with pytest.raises(PTXError, match="misaligned"):
        launch(changed("[%rd1];", "[%rd1 + 2];"), 33)


def test_an_unknown_instruction_is_named():
    with pytest.raises(PTXError, match=r"unknown instruction: frob\.f32"):
        launch(changed("add.f32", "frob.f32"), 33)
