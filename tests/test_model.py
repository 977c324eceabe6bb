"""The static model of GPU kernels: what it reads in machine code, and what it makes of it."""

import pytest

from bench.model import cuda_code, grid, theirs
from bench.model.__main__ import committed
from bench.model.bars import bar
from bench.model.compiled import Code, counts
from bench.model.floor import floor
from bench.model.times import H100, H200, Launched, Work, copy, executed, least, resident, seconds

SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0020*/                   DEPBAR.LE SB0, {left} ;
        /*0030*/                   LDS R2, [R3] ;
        /*0040*/                   LDGSTS.E.128 [R4], [R6.64] ;
        /*0050*/                   @P0 BRA `(.L_x_0) ;
        /*0060*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0070*/                   EXIT ;
.L_x_1:
        /*0080*/                   BRA `(.L_x_1);
"""
CODE = Code("kernel", "", 64, 0, 0, 400, 300, 2, 2, 0.9, 0)
WORK = Work(528, 2e8, 1e8, 30)


@pytest.mark.parametrize(("left", "prefetches"), [("0x0", 0), ("0x1", 1), ("0x4", 4)])
def test_what_machine_code_says(left, prefetches):
    """Nine instructions, five of them in the one loop; the branch to itself is padding."""
    assert counts(SASS.format(left=left)) == (9, 5, 1, 1, 0.6, prefetches, 0, 0)


@pytest.mark.parametrize(
    ("body", "first"),
    [
        (["LDG.E.U16 R4, [R6.64]", "FADD R5, R4, R5", "FADD R8, R8, R9", "FADD R8, R8, R9"], 0.8),
        (["MOV R4, R10", "LDG.E.U16 R10, [R6.64]", "FADD R5, R4, R5", "FADD R8, R8, R9"], 0.2),
    ],
    ids=["used at once", "used in the next turn"],
)
def test_how_far_ahead_registers_are_loaded(body, first):
    """What a loop asks for and uses in the next instruction is not asked for ahead."""
    lines = [".L_x_0:", *(f"/*{16 * i:04x}*/ {text} ;" for i, text in enumerate([*body, "@P0 BRA `(.L_x_0)"]))]
    assert counts("\n".join(lines))[4:] == (first, 0, 0, 0)


@pytest.mark.parametrize(
    ("code", "warps", "expected"),
    [(CODE, 8, 4), (CODE._replace(registers=65), 8, 3), (CODE._replace(shared_bytes=100 * 1024), 4, 2), (CODE, 1, 32)],
)
def test_how_many_programs_a_multiprocessor_holds(code, warps, expected):
    assert resident(code, warps) == expected


@pytest.mark.parametrize(
    ("code", "work"),
    [
        (CODE, WORK._replace(read=3e8)),
        (CODE, WORK._replace(written=2e8)),
        (CODE._replace(registers=168), WORK),
        (CODE._replace(loop_barriers=20), WORK),
        (CODE._replace(instructions=2000, loop=1900), WORK),
    ],
    ids=["reads", "writes", "registers", "barriers", "instructions"],
)
def test_more_of_anything_takes_longer(code, work):
    assert seconds(H100, code, 8, work) > seconds(H100, CODE, 8, WORK)


def test_what_helps():
    slow = seconds(H100, CODE, 8, WORK)
    assert seconds(H100, CODE._replace(prefetches=1), 8, WORK) < slow
    assert seconds(H200, CODE, 8, WORK) < slow
    assert seconds(H100, CODE, 8, WORK._replace(cached=0.98)) < slow


def test_nothing_is_faster_than_a_copy():
    assert seconds(H100, CODE, 8, WORK) > copy(H100, 3e8)
    assert all(0 < share <= 1 for row in committed().values() for share in row[2:6])


@pytest.mark.parametrize("work", [WORK, Work(8, 1e4, 0, 1, 1.0), Work(132, 1e6, 1e6)], ids=["large", "sums", "small"])
@pytest.mark.parametrize("device", [H100, H200], ids=lambda d: d.name)
def test_the_least_is_below_what_code_takes(device, work):
    """And no more than its bytes where they are many."""
    assert 1.5e-6 < least(device, work) < seconds(device, CODE, 8, work)
    assert least(H100, WORK) == pytest.approx(copy(H100, 3e8))


def least_code(kernel: str, work: Work, warps: int = 1, centred: bool = True) -> Code:
    return floor(Launched(CODE._replace(kernel=kernel), work, warps), centred).code


def test_the_least_code_of_a_row():
    """256 values of one warp: a load, eight conversions, three operations on each, four conversions back and a store.

    Then two loads of weights, five shuffles and additions, a division, rstd, and four for place and end.
    """
    row = Work(1000, 1000 * 512, 1000 * 512)
    alone = least_code("rows_forward_kernel<__nv_bfloat16>", row, centred=False)
    assert alone.instructions == 1 + 8 + 3 * 8 + 4 + 1 + 2 + 11 + 1 + 4
    assert (alone.barriers, alone.meetings, alone.loop) == (0, 0, 0)
    # a mean: two operations, a parameter, a sum and a number more; four warps: two halves more, and a barrier
    assert least_code("rows_forward_kernel", row).instructions - alone.instructions == 2 * 8 + 2 + 11 + 1
    wide = least_code("rows_forward_kernel", row._replace(read=4 * row.read), 4, centred=False)
    assert (wide.instructions - alone.instructions, wide.barriers) == (4 + 3, 1)
    # of rows side by side each has fewer threads, and of a cluster's one barrier is enough
    assert least_code("rows_forward_kernel", row._replace(statistics=4), 4).barriers == 0
    # where each thread has a row, its weights are a pack's still
    narrow = least_code("rows_forward_kernel", row._replace(statistics=32), centred=False)
    assert alone.instructions - narrow.instructions == 10
    both = least_code("rows_forward_kernel", row._replace(cluster=2), 4)
    assert (both.barriers, both.meetings) == (0, 1)


def test_the_least_code_of_a_loop():
    """Down the rows each turn has a sum and its barrier, and weights are kept; else they follow the loop."""
    work = Work(10, 2 * 10 * 5 * 2048, 10 * 5 * 2048, 5)
    down, along = least_code("rows_backward_kernel", work, 4), least_code("channels_sums_kernel", work, 4)
    assert (down.loop_barriers, down.barriers, along.loop_barriers, along.barriers) == (1, 0, 0, 1)
    assert 2 * 8 + 8 * 8 + 2 * 14 < down.loop < down.instructions
    assert along.instructions - along.loop > 2 * 14
    assert least_code("partial_sums_kernel", work).loop == 2 * 10 * 5 * 2048 / 10 / 5 / 32 / 4 * 1.25 + 3


@pytest.mark.parametrize("kernel", ["rows_forward_kernel", "rows_backward_kernel", "channels_moments_kernel"])
@pytest.mark.parametrize("device", [H100, H200], ids=lambda d: d.name)
def test_a_limit_is_between_what_is_predicted_and_none_at_all(kernel, device):
    whole = Launched(CODE._replace(kernel=kernel), WORK, 8)
    needed = floor(whole, True)
    assert least(device, WORK) < seconds(device, needed.code, 8, WORK) < seconds(device, whole.code, 8, WORK)
    assert executed(needed.code, WORK) < executed(whole.code, WORK)


def test_bars():
    """Of odd rows and of channels where enough moves; of backward by the length of a row."""
    assert bar("layer_norm", (4096, 1024), False) == (0.93, 0.90)
    assert bar("layer_norm", (4096, 1024), True) == (0.88, 0.80)
    assert bar("layer_norm", (131072, 128), True) == bar("rms_norm", (4096, 65536), True) == (0.75, 0.65)
    assert bar("rms_norm", (32768, 256), True) is bar("rms_norm", (64, 777), False) is None
    assert bar("rms_norm", (65536, 777), True) == (0.60, 0.0)
    assert bar("batch_norm", (32, 256, 56, 56), False) == (0.60, 0.55)
    assert bar("group_norm", (32, 256, 56, 56), False) == (0.70, 0.60)
    assert bar("group_norm", (2, 640, 32, 32), False) is None


SHAPE = {"layer_norm": (8192, 4096), "batch_norm": (32, 256, 56, 56)} | dict.fromkeys(
    ("group_norm", "instance_norm"), (32, 256, 56, 56)
)


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels last"])
@pytest.mark.parametrize("op", SHAPE)
def test_torch_at_the_least(op, last):
    """Launches, bytes and blocks: no op of torch's beats a copy, and fewer blocks or a copy to planes take longer."""
    large = 1e9  # far beyond L2
    forward, backward = (theirs.taken(H100, made) for made in theirs.launches(op, SHAPE[op], last, large))
    assert forward >= copy(H100, 2 * large) * 0.999
    assert backward >= copy(H100, 3 * large)
    if op in ("group_norm", "instance_norm") and last:
        planes = theirs.taken(H100, theirs.launches(op, SHAPE[op], False, large)[0])
        assert forward - planes == pytest.approx(copy(H100, 2 * large))


def test_few_blocks_take_longer():
    """A row of a million in one block; and of what is launched in many, bytes alone count."""

    def shaped(*work, warps=4):
        return theirs.shaped(H100, theirs.Launched.by_lanes(Work(*work), warps))

    assert shaped(1, 2e6, 2e6) > 5 * shaped(264, 2e6, 2e6)
    assert shaped(2048, 1e9, 1e9) == pytest.approx(copy(H100, 2e9))
    # what a block has asked for at once, and blocks that share a multiprocessor's path
    assert shaped(1, 2e6, 2e6) > shaped(1, 2e6, 2e6, warps=16)
    assert shaped(132, 132 * 2048, 0) < shaped(264, 264 * 2048, 0)
    one, many = (
        theirs.taken(H100, theirs.launches("layer_norm", s, False, 2e6)[0]) for s in ((1, 1 << 20), (1024, 1024))
    )
    assert one > 5 * many


def test_cases_launched_worse_than_torch_are_counted():
    cell = next(iter(grid.committed().values()))._replace(forward_torch=grid.SAME, backward_torch=1.03)
    said = grid.summary([cell])
    assert f"{cell.op} forward: 0 of 1 launched worse than torch's" in said
    assert f"{cell.op} backward: 1 of 1 launched worse than torch's" in said


def test_what_is_merged_first_takes_time():
    """Bytes that a program has from L2 before its tiles; one without a loop asks for its tile meanwhile."""
    lone = CODE._replace(loop=0, loop_barriers=0)
    merging = WORK._replace(steps=1, read=4e6, written=4e6, before=16e3)
    assert seconds(H100, CODE, 8, WORK._replace(before=16e3)) > seconds(H100, CODE, 8, WORK)
    assert seconds(H100, lone, 8, merging._replace(before=64e3)) > seconds(H100, lone, 8, merging)


def test_what_machine_code_of_cuda_says():
    """Three instructions of the loop are before the request; a path of divergent warps leads back to it too."""
    sass = SASS.format(left="0x0").replace("BRA `(.L_x_1)", "BRA `(.L_x_0)")
    code, body = cuda_code.loop_over_rows(sass)
    assert (len(code), len(body)) == (9, 5)
    later = sass.replace("BAR.SYNC.DEFER_BLOCKING 0x0", "FADD R2, R2, R3", 1).replace(
        "@P0 BRA", "BAR.SYNC 0x0 ;\n/*0048*/ @P0 BRA"
    )
    for text, ahead, first in ((sass, 0, 0.6), (later, 1, 0.5), (later.replace("LDGSTS", "LDG"), 0, 1.0)):
        made, asked = cuda_code.facts("kernel", 64, text, 0)
        assert (asked, made.loop_barriers, made.first_load) == (ahead, 1, first)
