"""What the static model of GPU kernels predicts, as committed."""

import csv

import pytest
from test_ptx_triton import compiled

from bench.model import bars, cuda, cuda_channels, cuda_code, cuda_long, cuda_rows, grid, kept
from bench.model.__main__ import Predicted, committed, worse
from bench.model.compiled import known
from bench.sweep import cases


def test_the_grid_has_every_case_of_the_sweep():
    wanted = {c.key(1, "")[: grid.KEY] for c in cases()}
    assert set(grid.committed()) == wanted


def test_cliffs_are_named():
    cell = next(iter(grid.committed().values()))._replace(forward_over=1.9, backward_over=1.0)
    assert not grid.cliffs([cell])
    steep = cell._replace(backward_over=2.1)
    assert grid.cliffs([cell, steep]) == [steep]
    assert f"{cell.op}: 1 of 2 above 2 times a copy and launches" in grid.summary([cell, steep])


def test_calibration():
    """Published: RMS norm forward, 2.9 to 3.0 TB/s of 3.0 on an H100, 4.18 of 4.3 on an H200."""
    row = committed()["rms_norm", "16384x4096"]
    assert row.forward_h100 == pytest.approx(2.95 / 3.0, abs=0.05)
    assert row.forward_h200 == pytest.approx(4.18 / 4.3, abs=0.05)


def test_kernels_of_cuda_are_named_as_they_are_compiled():
    """A template that takes other arguments than the model writes would be found only where there is nvcc."""
    with (cuda_code.ROOT / "docs/compiled/cuda.csv").open(newline="") as file:
        found = {row["kernel"] for row in csv.DictReader(file)}
    for center in ("true", "false"):
        for many in ("true", "false"):
            assert cuda.KERNEL.format(center=center, many=many) in found
        for chunks in (1, cuda_long.PACKS):
            assert cuda_rows.ALONE.format(center=center, chunks=chunks) in found


def test_rows_of_cuda_ask_ahead():
    """As committed: two tensors of two packs, one barrier for a row and one more for a cluster's."""
    rows = cuda.committed()
    assert {row.op for row in rows} == {"layer_norm", "rms_norm"}
    assert all(row.ahead == 4 and row.barriers == 1 + (row.cluster > 1) for row in rows)
    assert all(0 < row.h200 < row.h100 <= 1 for row in rows)


def test_a_backward_of_rows_is_two_launches():
    """Up to 65536 columns, and a forward is one."""
    for row in cuda_rows.committed().values():
        assert row.launches == "1+2" or int(row.shape.split("x")[1]) > 2**16


def test_long_rows_of_cuda():
    """As committed: one launch of clusters that hold a row forward, else two, each of whose reads is one."""
    rows = cuda_long.committed()
    assert [(row.op, row.shape) for row in rows] == [
        (op, s) for op in ("layer_norm", "rms_norm") for s in cuda_long.SHAPES
    ]
    for row in rows:
        M, N = map(int, row.shape.split("x"))
        few, held = M <= 64, N <= 2**17
        assert (row.forward_launches, row.forward_bytes) == ((1, 1.0) if held else (2, 1.5))
        assert row.backward_launches == 2
        assert row.backward_bytes < (1.7 if M > 16 or not held else 2.4)  # each of few rows has sums of its own
        assert not few or max(row.forward_over, row.backward_over) < grid.CLIFF
        assert not held or row.forward_over < grid.CLIFF


def test_channels_of_cuda_in_clusters():
    """As committed: fewer launches and a larger share than without them, on either device."""
    rows = cuda_channels.committed()
    assert {row.op for row in rows} == set(cuda_channels.SHAPES)
    for row in rows:
        assert row.blocks in (4, 8)
        assert row.launches <= min(2, row.plain_launches)
        assert row.launches == 1 or (row.op, row.way) != ("batch_norm", "backward")
        assert row.h100 > row.plain_h100
        assert row.h200 > row.plain_h200


def test_clusters_leave_no_cliff():
    """By the newest Triton: what has them is as good as a copy and its launches, and no worse than torch's."""
    cells = list(grid.committed(grid.SOME).values())
    assert len(cells) > 100
    assert not grid.cliffs(cells)
    assert max(max(c.forward_torch, c.backward_torch) for c in cells) <= grid.SAME


def test_the_bars_that_hold_are_told():
    """And of each miss what keeps it."""
    page = (cuda_code.ROOT / "docs/measured.md").read_text()
    assert "\n".join(kept.table()) in page
    for source in kept.TOLD:
        assert "\n".join(kept.misses(source)) in page


def test_limits_of_what_misses_a_bar():
    """Of every miss, with the share that its table has; no code is below what its formula needs."""
    shares = {"Triton 3.7": kept.read("predicted.csv"), "Triton 3.9": kept.read("clustered.csv")}
    shares["CUDA"] = {found[:3]: found for found in kept.sources()["CUDA"]}
    below = {
        (by, *found)
        for by, every in shares.items()
        for found in every.values()
        if (named := kept.label(found)) and not kept.holds(found, named[1])
    }
    misses = bars.committed()
    assert {one[:6] for one in misses} == below
    for one in misses:
        assert one.h100 <= one.code_h100 <= one.least_h100
        assert one.h200 <= one.code_h200 <= one.least_h200
        assert one.instructions >= 1.2


EVERY = """
from bench.model.__main__ import OPS, shapes
from bench.model.compiled import known
from bench.model.floor import floor
from bench.model.times import H100
from bench.model.work import calls, launched
codes, seen = known(), 0
before = len(codes)
for op in OPS:
    for shape in shapes(op):
        sizes, _, last = shape.partition(":")
        forward, backward, _ = calls(op, tuple(map(int, sizes.split("x"))), bool(last), H100)
        for one in launched(forward + backward, codes):
            code, least = one.code, floor(one, op != "rms_norm").code
            fields = "instructions", "barriers", "loop_barriers", "meetings", "loop_meetings"
            for field in (*fields, *(["loop"] if one.work.steps else [])):
                assert getattr(least, field) <= getattr(code, field), (op, shape, code, least)
            seen += 1
assert len(codes) == before, "not committed"
print(seen)
"""


def test_no_committed_kernel_has_less_code_than_its_formula_needs():
    assert int(compiled("-c", EVERY)) > 200


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
