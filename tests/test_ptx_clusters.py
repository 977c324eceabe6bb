"""Clusters in the interpreter of PTX: blocks that read each other's shared memory, and faults, each found in any order.

Where a GPU would be right by luck, as when one block is far ahead of another, the barrier that is missing is named.
"""

import random

import pytest

pytest.importorskip("numpy")

import numpy as np
from ptx.grid import packed, run
from ptx.memory import Memory, PTXError
from ptx.parser import parse

THREADS, BLOCKS, CLUSTERS = 64, 4, 3
ORDERS = [None, *map(random.Random, range(3))]
NAMES = ["lockstep", "random 0", "random 1", "random 2"]

# y[i] = x of the same thread of the next block of the cluster
NEXT = """
.visible .entry next(.param .u64 .ptr .global .align 1 X, .param .u64 .ptr .global .align 1 Y)
.reqntid 64
.explicitcluster
.reqnctapercluster 4, 1, 1
{
	.reg .pred %p<3>;
	.reg .b32 %r<12>;
	.reg .b64 %rd<8>;
	.shared .align 16 .b8 smem[256];
	ld.param.b64 %rd1, [X];
	ld.param.b64 %rd2, [Y];
	mov.u32 %r1, %tid.x;
	mov.u32 %r2, %ctaid.x;
	mad.lo.s32 %r3, %r2, 64, %r1;
	mul.wide.s32 %rd3, %r3, 4;
	add.s64 %rd1, %rd1, %rd3;
	add.s64 %rd2, %rd2, %rd3;
	ld.global.b32 %r4, [%rd1];
	shl.b32 %r5, %r1, 2;
	mov.b32 %r6, smem;
	add.s32 %r6, %r6, %r5;
	st.shared.b32 [%r6], %r4;
	barrier.cluster.arrive.aligned;
	barrier.cluster.wait.aligned;
	mov.u32 %r7, %cluster_ctarank;
	add.s32 %r8, %r7, 1;
	mov.u32 %r9, %cluster_nctarank;
	rem.u32 %r8, %r8, %r9;
	mapa.shared::cluster.u32 %r10, %r6, %r8;
	ld.shared::cluster.b32 %r11, [%r10];
	st.global.b32 [%rd2], %r11;
	barrier.cluster.arrive.aligned;
	barrier.cluster.wait.aligned;
	ret;
}
"""
BARRIER = "\tbarrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;\n"
FIRST, LAST = "[%r6], %r4;\n" + BARRIER, "[%rd2], %r11;\n" + BARRIER
GENERIC = (  # what nvcc makes of cooperative groups
    "mapa.shared::cluster.u32 %r10, %r6, %r8;\n\tld.shared::cluster.b32 %r11, [%r10];",
    "cvt.u64.u32 %rd4, %r6;\n\tcvta.shared.u64 %rd5, %rd4;\n\tmapa.u64 %rd6, %rd5, %r8;\n\tld.b32 %r11, [%rd6];",
)
PUSHED = (  # a block writes into the next one's memory what that one stores
    "mapa.shared::cluster.u32 %r10, %r6, %r8;\n\tld.shared::cluster.b32 %r11, [%r10];",
    "mapa.shared::cluster.u32 %r10, %r6, %r8;\n\tst.shared::cluster.b32 [%r10], %r4;\n"
    + BARRIER
    + "\tld.shared.b32 %r11, [%r6];",
)


def changed(old: str, new: str, ptx: str = NEXT) -> str:
    assert ptx.count(old) == 1
    return ptx.replace(old, new)


def launch(ptx: str, order: random.Random | None = None, grid: int = BLOCKS * CLUSTERS, **options) -> np.ndarray:
    """y less x, where blocks are those of a cluster."""
    x = np.arange(THREADS * grid, dtype=np.int32)
    memory = Memory(2**16, "global")
    at, y = memory.allocate(x.nbytes, x.view(np.uint8)), memory.allocate(x.nbytes)
    kernel = parse(ptx)
    run(kernel, memory, packed(kernel, [at, y]), (grid, 1, 1), (THREADS, 1, 1), order=order, **options)
    return (memory.bytes[y : y + x.nbytes].view(np.int32) - x).reshape(-1, BLOCKS, THREADS) // THREADS


@pytest.mark.parametrize("order", ORDERS, ids=NAMES)
@pytest.mark.parametrize("edit", [("ret;", "ret;"), GENERIC], ids=["shared", "generic"])
def test_a_block_reads_what_the_next_one_wrote(edit, order):
    found = launch(changed(*edit), order)
    assert (found == np.array([1, 1, 1, 1 - BLOCKS])[:, None]).all()


@pytest.mark.parametrize("order", ORDERS, ids=NAMES)
def test_a_block_writes_where_the_next_one_reads(order):
    found = launch(changed(*PUSHED), order)
    assert (found == np.array([BLOCKS - 1, -1, -1, -1])[:, None]).all()


def test_a_launch_may_say_how_large_clusters_are():
    alone = NEXT.replace(".explicitcluster\n.reqnctapercluster 4, 1, 1\n", "")
    assert (launch(alone) == 0).all(), "each is its own"
    assert (launch(alone, cluster=(4, 1, 1)) == launch(NEXT)).all()


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("%cluster_ctarank", [0, 1, 2, 3]),
        ("%cluster_ctaid.x", [0, 1, 2, 3]),
        ("%cluster_nctarank", [4, 4, 4, 4]),
        ("%clusterid.x", [[0], [1], [2]]),
        ("%nclusterid.x", [3, 3, 3, 3]),
    ],
)
def test_a_block_knows_its_place(name, want):
    found = launch(changed("[%rd2], %r11;", f"[%rd2], %r11;\n\tmov.u32 %r11, {name};\n\tst.global.b32 [%rd2], %r11;"))
    x = np.arange(THREADS * BLOCKS * CLUSTERS).reshape(-1, BLOCKS, THREADS)
    assert (found == (np.broadcast_to(want, (CLUSTERS, BLOCKS))[..., None] - x) // THREADS).all()


TWICE = changed("[%rd2], %r11;", "[%rd2], %r11;\n\tst.shared.b32 [%r6], %r1;")  # in place of what another reads
FAULTS = {
    "the first barrier removed": (changed(FIRST, "[%r6], %r4;\n"), "may not have begun"),
    "a block's own barrier in place of the first": (changed(FIRST, "[%r6], %r4;\n\tbar.sync 0;\n"), "not have begun"),
    "a first barrier that releases nothing": (
        changed("arrive.aligned", "arrive.relaxed.aligned", NEXT.replace(LAST, "")).replace("ret;", LAST[14:] + "ret;"),
        "no barrier since another block wrote this",
    ),
    "the last barrier removed": (changed(LAST, "[%rd2], %r11;\n"), "may end|has ended"),
    "no last wait": (changed(LAST, "[%rd2], %r11;\n\tbarrier.cluster.arrive.aligned;\n"), "may end|has ended"),
    "a barrier removed between a read and a write": (TWICE, "no barrier since another block (read|wrote)"),
    "a barrier removed after a write": (
        changed(BARRIER + "\tld.shared.b32", "\tld.shared.b32", changed(*PUSHED)),
        "no barrier since another block (read|wrote)",
    ),
    "a rank too far": (changed("add.s32 %r8, %r7, 1;", "add.s32 %r8, %r7, 5;").replace("rem.u32", "min.u32"), "a rank"),
    "a place out of bounds": (changed("ld.shared::cluster.b32 %r11, [%r10]", "ld.shared::cluster.b32 %r11, [%r10+256]"),
        "out of bounds"),
    "memory that nobody wrote": (changed("st.shared.b32", "@%p0 st.shared.b32"), "nobody wrote"),
    "another's memory as if its own": (changed("ld.shared::cluster.b32", "ld.shared.b32"), "as if one's own"),
    "a barrier that some threads skip": (
        changed(LAST, "[%rd2], %r11;\n\tsetp.eq.s32 %p1, %r1, 5;\n\t@%p1 ret;\n" + BARRIER),
        "some threads never reach",
    ),
    "a barrier that a block skips": (
        changed(LAST, "[%rd2], %r11;\n\tsetp.eq.s32 %p1, %r7, 2;\n\t@%p1 ret;\n" + BARRIER),
        "some threads never reach|may end|has ended",
    ),
    "an arrival without a wait": (changed(FIRST, FIRST.replace("\tbarrier.cluster.wait.aligned;\n", "")), "not have"),
    "two arrivals": (changed(FIRST, FIRST.replace("arrive.aligned;\n", "arrive.aligned;\n" + BARRIER)), "out of turn"),
    "a wait without an arrival": (changed(FIRST, FIRST + "\tbarrier.cluster.wait.aligned;\n"), "out of turn"),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=NAMES)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault, order):
    ptx, said = FAULTS[fault]
    with pytest.raises(PTXError, match=said):
        launch(ptx, order)


def test_the_wrong_rank_is_another_block():
    wrong = launch(changed("add.s32 %r8, %r7, 1;", "add.s32 %r8, %r7, 2;"))
    assert (wrong != launch(NEXT)).all()


@pytest.mark.parametrize(
    ("grid", "options"), [(6, {}), (8, {"cluster": (2, 1, 1)})], ids=["part of a cluster", "another size"]
)
def test_a_launch_that_does_not_fit_is_refused(grid, options):
    with pytest.raises(PTXError, match="a launch that no GPU takes"):
        launch(NEXT, grid=grid, **options)


def test_a_cluster_too_large_is_refused():
    with pytest.raises(PTXError, match="a launch that no GPU takes"):
        launch(changed("percluster 4, 1, 1", "percluster 16"), grid=16)
