"""The static model of GPU kernels: what it reads in machine code, what it makes of it, and what is committed."""

import csv

import pytest
from test_ptx_triton import compiled

from bench.model import cuda, cuda_long, grid, theirs
from bench.model.__main__ import Predicted, committed, worse
from bench.model.bars import bar
from bench.model.compiled import Code, counts, known
from bench.model.times import H100, H200, Work, copy, least, resident, seconds
from bench.sweep import cases

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
    assert counts(SASS.format(left=left)) == (9, 5, 1, 1, 0.6, prefetches)


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
    assert counts("\n".join(lines))[4:] == (first, 0)


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


def test_the_grid_has_every_case_of_the_sweep():
    wanted = {c.key(1, "")[: grid.KEY] for c in cases()}
    assert set(grid.committed()) == wanted


def test_cliffs_are_named():
    cell = next(iter(grid.committed().values()))._replace(forward_over=1.9, backward_over=1.0)
    assert not grid.cliffs([cell])
    steep = cell._replace(backward_over=2.1)
    assert grid.cliffs([cell, steep]) == [steep]
    assert f"{cell.op}: 1 of 2 above 2 times a copy and launches" in grid.summary([cell, steep])


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


def test_calibration():
    """Published: RMS norm forward, 2.9 to 3.0 TB/s of 3.0 on an H100, 4.18 of 4.3 on an H200."""
    row = committed()["rms_norm", "16384x4096"]
    assert row.forward_h100 == pytest.approx(2.95 / 3.0, abs=0.05)
    assert row.forward_h200 == pytest.approx(4.18 / 4.3, abs=0.05)


def test_what_machine_code_of_cuda_says():
    """Three instructions of the loop are before the request; a path of divergent warps leads back to it too."""
    sass = SASS.format(left="0x0").replace("BRA `(.L_x_1)", "BRA `(.L_x_0)")
    code, body = cuda.loop_over_rows(sass)
    assert (len(code), len(body)) == (9, 5)
    later = sass.replace("BAR.SYNC.DEFER_BLOCKING 0x0", "FADD R2, R2, R3", 1).replace(
        "@P0 BRA", "BAR.SYNC 0x0 ;\n/*0048*/ @P0 BRA"
    )
    for text, ahead, first in ((sass, 0, 0.6), (later, 1, 0.5), (later.replace("LDGSTS", "LDG"), 0, 1.0)):
        made, asked = cuda.facts("kernel", 64, text, 0)
        assert (asked, made.loop_barriers, made.first_load) == (ahead, 1, first)


def test_kernels_of_cuda_are_named_as_they_are_compiled():
    """A template that takes other arguments than the model writes would be found only where there is nvcc."""
    with (cuda.ROOT / "docs/compiled/cuda.csv").open(newline="") as file:
        found = {row["kernel"] for row in csv.DictReader(file)}
    for center in ("true", "false"):
        for chunks in cuda.CHUNKS:
            assert cuda.KERNEL.format(center=center, chunks=chunks) in found


def test_rows_of_cuda_ask_ahead():
    """As committed: two tensors of two or four packs."""
    rows = cuda.committed()
    assert {row.op for row in rows} == {"layer_norm", "rms_norm"}
    assert all(row.ahead in (4, 8) and 0 < row.h200 < row.h100 <= 1 for row in rows)


def test_long_rows_of_cuda():
    """As committed: two launches each way of few rows, each of whose reads is one, and no cliff among them."""
    rows = cuda_long.committed()
    assert [(row.op, row.shape) for row in rows] == [
        (op, s) for op in ("layer_norm", "rms_norm") for s in cuda_long.SHAPES
    ]
    for row in rows:
        few = int(row.shape.split("x")[0]) <= 64
        assert row.forward_launches == 2
        assert row.backward_launches == 2 or not few
        assert row.forward_bytes == 1.5
        assert row.backward_bytes < 1.7
        assert not few or max(row.forward_over, row.backward_over) < grid.CLIFF


def test_no_kernel_of_the_model_spills():
    assert not [code for code in known().values() if code.spills]


def test_a_share_that_falls_is_found():
    row = Predicted("rms_norm", "1x1", 0.9, 0.9, 0.8, 0.8, "1+2")
    table = {row[:2]: row}
    assert not worse([row], table)
    assert worse([row._replace(backward_h200=0.7)], table) == ["rms_norm 1x1: backward_h200 0.8 -> 0.7"]
    assert "not in predicted.csv" in worse([row._replace(shape="2x2")], table)[0]


def test_the_committed_predictions_are_those_of_this_code():
    printed = compiled("-m", "bench.model", "--check", "rms_norm", "--shape", "16384x4096")
    assert printed.startswith("predicted, not measured")
    assert "not as in" not in compiled("-m", "bench.model", "--grid", "rms_norm", "--shape", "8192x1024")
