"""Bytes that ops move, counted while PTX runs: what docs/compiled/bytes.csv promises, and what more is noticed."""

import numpy as np
import pytest
from ptx.memory import Memory
from test_ptx_triton import compiled

from tests.ptx.traffic import committed, problems

READ_ONCE = ("rms_norm", "layer_norm", "weight_norm", "weight_standardization")
TABLE = committed()
# of channels on each shape, forward and backward: what a block holds is read once, a statistic of many blocks again
SWEEPS = {"4x8x16x16": {"batch_norm": (2, 3)}, "6x4x80x80": {"batch_norm": (3, 5), "batch_renorm": (3, 5)}}
SWEEPS["4x8x16x16"] |= {"group_norm": (2, 3), "instance_norm": (2, 3), "online_norm": (3, 5)}
SWEEPS["6x4x80x80"] |= {"group_norm": (2, 3), "instance_norm": (2, 3)}


@pytest.mark.parametrize("key", [key for key in TABLE if key[1][:-4] in READ_ONCE], ids=" ".join)
def test_rows_and_filters_are_read_once(key):
    row = TABLE[key]
    assert row.moved <= 1.05 * row.least
    assert row.launches <= (1 if row.op.endswith("fwd") else 2)


@pytest.mark.parametrize("backend", ["triton", "native"])
@pytest.mark.parametrize("shape", SWEEPS)
def test_channels_take_the_sweeps_that_are_stated(backend, shape):
    for op, sweeps in SWEEPS[shape].items():
        for way, expected in zip(("fwd", "bwd"), sweeps, strict=True):
            assert TABLE[backend, f"{op}_{way}", shape].sweeps <= expected + 0.05


def test_more_than_the_table_says_is_found():
    row = TABLE["triton", "rms_norm_bwd", "48x1024"]
    assert not problems([row, row._replace(moved=row.moved - 1)], TABLE)
    for name in ("launches", "moved", "workspaces"):
        before = getattr(row, name)
        more = row._replace(**{name: before + 1})
        assert problems([more], TABLE) == [f"triton rms_norm_bwd 48x1024: {name} {before} -> {before + 1}"]
    assert "not in the table" in problems([row._replace(shape="1x1")], TABLE)[0]


def test_what_is_counted():
    """Every access, but lanes that read the same share one; and each byte once."""
    memory = Memory(4096, "global")
    at = memory.allocate(64, np.zeros(64, np.uint8))
    memory.load(at + 4 * np.arange(8), 4, "")
    memory.load(at + 4 * np.arange(8), 4, "")
    memory.load(np.full(32, at), 4, "")
    memory.store(at + 4 * np.arange(8, 10), np.zeros(2, np.uint32), 4, "")
    assert (memory.traffic[at].total, memory.traffic[at].touched.sum()) == (32 + 32 + 4 + 8, 40)


def test_an_op_moves_what_the_table_says():
    assert "0 problems" in compiled("-m", "tests.ptx.traffic", "--backend", "triton", "rms_norm")
