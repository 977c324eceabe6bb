"""Programs of several blocks: which calls have them, by version of Triton and GPU, and what Triton makes of them.

The Triton that is pinned compiles none. The newest one that is supported does, where ``tests/compiled/versions.py`` has
installed it; its PTX then runs on CPU tensors, blocks of a cluster and their warps in random order.
"""

import contextlib
import functools
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_ptx_triton import compiled

ROOT = Path(__file__).parents[1]
NEWEST = ROOT / ".venv/versions/triton-3.9.0"

CHOSEN = """
import sys
from tests.compiled.calls import Channels, record, record_channels
from tests.compiled.launches import BF16, F32, F64, allowing
version, arch, dtype, *calls = sys.argv[1:]
x, w = {"bf16": (BF16, F32), "fp32": (F32, F32), "fp64": (F64, F64)}[dtype]
for call in calls:
    sizes, _, last = call.partition(":")
    N, *rest = map(int, sizes.split("x"))
    with allowing(version, int(arch)):
        if rest:
            C, S, B, G = rest
            made = record_channels(x, w, Channels((N, C, S), (B, G), bool(last)))[:2]
        else:
            made = record("layer_norm", x, w, N)[:2]
    print(*(f"{one.kernel.split('_')[1]}*{one.num_ctas}" for one in made))
"""
CALLS = {  # (N, C, S), (B, G) -> blocks of its first two launches, or N of a row
    "32x256x3136x1x256": "forward*8 backward*8",
    "32x512x784x1x512": "forward*4 backward*4",
    "32x1024x196x1x1024": "forward*2 backward*1",
    "2x320x4096x2x32": "forward*8 backward*8",
    "1x320x4096x1x32": "forward*8 backward*8",  # as among others
    "2x640x1024x2x32": "forward*4 backward*4",
    "2x64x262144x2x64": "forward*8 sums*1",
    "2x320x256x2x32": "forward*1 backward*1",
    "32x64x12544x1x64": "moments*1 merge*1",
    "12288": "forward*1 backward*2",
    "16384": "forward*2 backward*2",
    "24576": "forward*2 backward*4",
    "65536": "forward*8 backward*8",
    "262144": "forward*8 long*1",
}
LOOPS = ("32x256x3136x1x256:last", "2x320x4096x2x32:last", "16385", "20001")  # of a few bytes at a time


def chosen(version: str, arch: int, *calls: str, dtype: str = "bf16") -> list[str]:
    return compiled("-c", CHOSEN, version, str(arch), dtype, *calls).splitlines()


@functools.cache
def most(version: str, capability: int) -> int:
    pytest.importorskip("triton")
    from normkernels._backends.triton.base import clusters

    return clusters.most(version, capability)


@pytest.mark.parametrize(
    ("version", "capability", "blocks"),
    [
        ("3.7.1", 9, 1),
        ("3.8.0", 9, 1),
        ("3.9.0", 9, 8),
        ("3.9.0", 8, 1),
        ("3.10.0+git1", 10, 8),
        ("4.0.0", 9, 8),
        ("2.9.9", 9, 1),
    ],
)
def test_who_has_clusters(version, capability, blocks):
    assert most(version, capability) == blocks


@pytest.mark.parametrize(("room", "blocks"), [(2, 8), (0, 1), (None, 1)], ids=["a whole GPU", "a slice", "an error"])
def test_a_device_that_has_no_room_for_a_cluster_has_none(room, blocks, monkeypatch):
    """Asked once, of blocks that leave no room beside them."""
    pytest.importorskip("triton")
    from normkernels._backends.triton.base import clusters

    asked = []

    def occupancy(function, shared, num_ctas):
        asked.append((function, shared, num_ctas))
        if room is None:
            raise RuntimeError("Triton Error [CUDA]: invalid argument")
        return room

    utils = SimpleNamespace(
        get_device_properties=lambda _: {"max_shared_mem": 227 << 10}, cuOccupancyMaxActiveClusters=occupancy
    )
    driver = SimpleNamespace(utils=utils, get_current_device=lambda: 0)
    kernel = SimpleNamespace(_init_handles=lambda: None, function=7)
    monkeypatch.setattr(clusters, "nothing", SimpleNamespace(warmup=lambda **_: kernel))
    monkeypatch.setattr(clusters.triton.runtime, "driver", SimpleNamespace(active=driver))
    monkeypatch.setattr(clusters.triton, "__version__", "3.9.0")
    monkeypatch.setattr(clusters.torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(clusters.torch.cuda, "get_device_capability", lambda _: (9, 0))
    clusters._blocks.cache_clear()
    try:
        assert [clusters._blocks("cuda:0") for _ in range(2)] == [blocks] * 2
    finally:
        clusters._blocks.cache_clear()
    assert asked == [(7, 227 << 10, 8)]


@pytest.mark.parametrize(
    ("pieces", "num_warps", "num_ctas", "programs"),
    [(999, 16, 1, 132), (999, 16, 2, 66), (999, 16, 4, 32), (999, 16, 8, 16), (999, 8, 8, 32), (5, 16, 8, 5)],
)
def test_programs_that_all_run_at_once(pieces, num_warps, num_ctas, programs, monkeypatch):
    """On 132 multiprocessors, of which sixteen hold whole clusters of four or eight."""
    pytest.importorskip("triton")
    from normkernels._backends.triton.base import clusters, launch

    monkeypatch.setattr(launch, "multiprocessors", lambda _: 132)
    assert clusters.programs(torch.empty(0), pieces, num_warps, num_ctas) == programs


def test_what_no_block_holds_is_held_by_the_fewest_that_are_fast():
    assert dict(zip(CALLS, chosen("3.9.0", 90, *CALLS), strict=True)) == CALLS


@pytest.mark.parametrize(
    ("version", "arch", "dtype"), [("3.7.1", 90, "bf16"), ("3.9.0", 80, "bf16"), ("3.9.0", 90, "fp64")]
)
def test_elsewhere_nothing_is(version, arch, dtype):
    assert not [line for line in chosen(version, arch, *CALLS, dtype=dtype) if "*1" not in line or "*2" in line]


def test_accesses_of_a_few_bytes_are_not_shared_out():
    assert not [line for line in chosen("3.9.0", 90, *LOOPS) if line.count("*1") != 2]


RUN = """
import random, re, sys, torch
from normkernels._backends.triton.channels import sizes
from normkernels.cases import OPS
from normkernels.tolerance import check
from tests.ptx import launch
from tests.ptx.memory import PTXError
stem, dtype, fault, *shapes = sys.argv[1:]
if len(shapes[0].split("x")) > 2:
    sizes.ALONE, sizes.EACH = 512, 256
op, run, seen = OPS[stem], launch.run, []
launch.run = lambda kernel, *args: (seen.append(kernel.cluster), run(kernel, *args))
edits = {
    "none": str,
    "first": lambda ptx: re.sub(r"barrier.cluster.(arrive|wait)[^;]*;", "", ptx, count=2),
    "last": lambda ptx: "".join(ptx.rsplit("barrier.cluster.wait.aligned;", 1)),
    "rank": lambda ptx: re.sub(r"(mapa\\S+\\s+%r\\d+, %r\\d+), %r\\d+;", r"\\1, 0;", ptx),
}
torch.manual_seed(0)
for i, shape in enumerate(shapes):
    more = {"residual" if op.kind == "rows" else "skip": True, "activation": "silu"} if i % 2 else {}
    groups = {"num_groups": 2} if stem == "group_norm" else {}
    sample = op.make(tuple(map(int, shape.split("x"))), torch.float64, **more, **groups)
    try:
        with launch.running(random.Random(i) if i else None, edits[fault]):
            reports = check(op, sample, "triton", getattr(torch, dtype))
    except PTXError as error:
        print(error)
        continue
    assert [cluster for cluster in seen if cluster], "no cluster"
    print(max(report.worst for report in reports) <= 1)
"""
SHAPES = {
    "batch_norm": ("2x3x20x21", "4x3x16x16", "3x2x31x33", "8x2x12x12"),
    "group_norm": ("2x4x20x21", "1x6x16x16", "2x10x12x12"),
    "instance_norm": ("2x3x40x21", "1x3x32x32"),
    "batch_renorm": ("2x3x20x21", "4x3x16x16"),
    "streaming_norm": ("2x3x20x21", "4x3x16x16"),
    "layer_norm": ("3x16384",),
}


def run(stem: str, dtype: str, fault: str = "none", *shapes: str) -> list[str]:
    if not NEWEST.exists() and most(pytest.importorskip("triton").__version__, 9) == 1:
        pytest.skip("needs Triton 3.9, which compiles clusters: python tests/compiled/versions.py installs one")
    path = os.pathsep.join([str(NEWEST), str(ROOT)])
    return compiled("-c", RUN, stem, dtype, fault, *shapes, PYTHONPATH=path, TRITON_DEFAULT_FP_FUSION="1").splitlines()


@pytest.mark.parametrize(("stem", "dtype"), [*((s, "bfloat16") for s in SHAPES), ("batch_norm", "float32")])
def test_clusters_are_within_their_tolerance(stem, dtype):
    assert run(stem, dtype, "none", *SHAPES[stem]) == ["True"] * len(SHAPES[stem])


@pytest.mark.parametrize("fault", ["first", "last", "rank"])
def test_faults_in_their_code_are_found(fault):
    """A barrier of the cluster removed, or the wait that keeps a block's memory alive, or one block read by all."""
    found = run("batch_norm", "float32", fault, "2x3x20x21", "4x3x16x16")
    assert "True" not in found, found
