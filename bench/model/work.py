"""Each launch that a call makes, with what it reads and writes: from the launchers themselves, on meta tensors."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from . import times
from .compiled import ARCHITECTURE, Code, compiled
from .times import L2_KEPT, Device, Launched, Work

CLUSTERS: Any = importlib.import_module("normkernels._backends.triton.base.clusters")
MOST = CLUSTERS.most(importlib.import_module("triton").__version__, ARCHITECTURE // 10)  # blocks of a program
CLUSTERED = MOST > 1
BF16, F32 = torch.bfloat16, torch.float32
SECOND = {
    "channels_apply_kernel",
    "channels_merge_apply_kernel",
    "channels_dx_kernel",
    "channels_merge_dx_kernel",
    "rows_long_backward_kernel",
}  # sweeps that may find in L2 what the first one left there
SUMS = {"partial_sums_kernel", "channels_merge_moments_kernel", "channels_merge_sums_kernel"}  # of partial results


class Called(NamedTuple):
    """One launch as it was made: specialised, and its arguments by name."""

    launch: Any
    grid: tuple[int, ...]
    given: dict[str, Any]


@contextmanager
def recorded(device: Device) -> Iterator[list[Called]]:
    """Launches made inside are noted and not run, as on this device."""
    jit: Any = importlib.import_module("triton.runtime.jit").JITFunction
    table: Any = importlib.import_module("tests.compiled.launches")
    found: list[Called] = []

    def note(kernel, *args, grid, warmup, **options):
        given = dict(zip(kernel.arg_names, args, strict=False)) | options
        found.append(Called(table.specialise(kernel, args, options, ""), tuple(grid), given))

    ours = [m for name, m in sys.modules.items() if name.startswith("normkernels._backends.triton")]
    patched: list[tuple[Any, str, Callable]] = [(jit, "run", note), (CLUSTERS, "blocks", lambda t: MOST)]
    patched += [(m, "multiprocessors", lambda t: device.multiprocessors) for m in ours if hasattr(m, "multiprocessors")]
    patched += [(m, "wave", lambda t, row: max(1, device.l2_bytes // 2 // row)) for m in ours if hasattr(m, "wave")]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in patched]
    for owner, name, value in patched:
        setattr(owner, name, value)
    try:
        yield found
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


class Kind(NamedTuple):
    """Of a call: dtypes of x and of the parameters, whether an instance norm has any; groups of a group norm."""

    x: torch.dtype = BF16
    parameters: torch.dtype = F32
    affine: bool = False
    groups: int = 32


PLAIN = Kind()


def calls(
    op: str, shape: tuple[int, ...], last: bool, device: Device, kind: Kind = PLAIN
) -> tuple[list[Called], list[Called], int]:
    """The launches of a forward and of a backward, and the bytes of the input."""

    def new(dtype, *sizes):
        return torch.empty(sizes, dtype=dtype, device="meta")

    run = importlib.import_module("tests.compiled.launches").run
    importlib.import_module(f"normkernels._backends.triton.{op}")  # before it is known which modules there are
    if op in ("layer_norm", "rms_norm"):
        M, N = shape
        x, w, s, end = new(kind.x, M, N), new(kind.parameters, N), new(F32, M), (0.0, "identity", 0.01)
        bias, mean = (w, [s]) if op == "layer_norm" else (None, [])
        forward = (x, None, w, bias, None, x, None, *mean, s, 1e-5, *end)
        backward = (x, None, x, w, bias, None, *mean, s, x, w, bias, None, *end)
    else:
        N, C, *rest = shape
        S, groups = math.prod(rest), {"batch_norm": C, "instance_norm": C, "group_norm": math.gcd(kind.groups, C)}[op]
        B = 1 if op == "batch_norm" else N
        pooled = last and B == 1
        x = new(kind.x, *((1, N * S, C) if pooled else (N, S, C) if last else (N, C, S)))
        w = None if op == "instance_norm" and not kind.affine else new(kind.parameters, C)
        s, end = new(F32, B, groups), ("identity", 0.01, last)
        forward = (x, None, w, w, x, s, s, 1e-5, *end)
        backward = (x, x, None, w, w, s, s, x, None, w, w, 1e-5, True, *end)
    with recorded(device) as first:
        run(f"{op}_fwd", *forward)
    with recorded(device) as second:
        run(f"{op}_bwd", *backward)
    return first, second, x.numel() * x.element_size()


def taken(device: Device, launches: list[Called], codes: dict[str, Code]) -> float:
    """Seconds of launches one after the other."""
    return times.taken(device, launched(launches, codes))


def launched(launches: list[Called], codes: dict[str, Code]) -> list[Launched]:
    """As the model takes them."""
    return [Launched(compiled(c.launch, codes), work(c), c.launch.num_warps) for c in launches]


def work(called: Called) -> Work:
    """What one launch does."""
    kernel, given, programs = called.launch.kernel, called.given, math.prod(called.grid) * called.launch.num_ctas
    if kernel in SUMS:
        return _sums(kernel, given, programs)
    t = given["t"] if "t" in given else None
    x = given["X"] if t is None else t.x
    size, inputs = x.numel() * x.element_size(), 2 if t is not None and "dy" in t._fields else 1
    writes = [name for name in ("y", "dx") if t is not None and getattr(t, name, None) is not None]
    steps, read = _steps(kernel, called), inputs * size
    cached = min(0.98, L2_KEPT / read) if kernel in SECOND else 0.0
    # partial results: four tables of them, what a program merges, or two
    before = 4 * 4 * math.prod(given["MERGE"]) if "MERGE" in given else 0
    if kernel == "channels_merge_dx_kernel":
        before = 2 * 4 * given["sums"].partial_w.shape[0] * given["FORM"].BLOCK_A
    if kernel == "rows_long_forward_kernel":
        if given["step"] == 0:  # twice: again what two programs on each multiprocessor read just before
            read, cached = 2 * read, 0.5 * min(1.0, L2_KEPT / (2 * 132 * x.shape[1] * x.element_size()))
        elif given["step"] == 1:
            writes = []
        else:
            cached, before = min(0.98, L2_KEPT / read), given["PARTIAL"].numel() / x.shape[0] * 4
    if kernel == "rows_long_backward_kernel":  # of its rows at a time, what it adds up
        before = given["SUMS"].numel() * 4
    form = given["FORM"]
    at_once = getattr(form, "BLOCK_A", 0) or form.BLOCK_M * form.TILES
    cluster = called.launch.num_ctas
    return Work(programs, read, size * len(writes), steps, cached, before, cluster=cluster, statistics=at_once)


def _steps(kernel: str, called: Called) -> int:
    """Tiles that a program walks, where it walks."""
    given = called.given
    if kernel == "rows_backward_kernel":
        return math.ceil(given["M"] / (given["FORM"].BLOCK_M * given["FORM"].TILES) / called.grid[0])
    if kernel == "rows_long_backward_kernel":
        return math.ceil(given["M"] / given["FORM"].BLOCK_M)
    if kernel == "rows_long_forward_kernel":
        return math.ceil(math.ceil(given["N"] / given["FORM"].BLOCK_N) / (called.grid[0] // given["M"]))
    if kernel == "rows_long_sums_kernel":
        columns = given["N"] if called.grid[0] == given["M"] else given["PART"]
        return math.ceil(columns / given["FORM"].BLOCK_N)
    return given.get("steps", 0)


def _sums(kernel: str, given: dict[str, Any], programs: int) -> Work:
    """A program sums up what it is given of each table in turn, so many rows at a time."""
    names = ["PARTIAL"] if kernel == "channels_merge_moments_kernel" else ["PARTIAL_W", "PARTIAL_B"]
    read = sum(given[name].numel() * 4 for name in names if given[name] is not None)
    if kernel == "partial_sums_kernel":
        return Work(programs, read, 0, math.ceil(given["P"] / given["BLOCK_P"]), 1.0)
    form = given["FORM"]
    steps = math.ceil(given["rows"] * (given["C"] // given["G"]) / form.BLOCK_R)
    if not form.APART:
        return Work(programs, read, 0, steps, 1.0)
    # some programs sum up the rows of all batches, eight columns wide
    means, more = given["B"] * math.ceil(given["G"] / form.BLOCK_G), math.ceil(given["rows"] * given["B"] / form.APART)
    turns = (means * steps + (programs - means) * more) / programs
    return Work(programs, 2 * read, 0, max(steps, more), 1.0, turns=turns)
