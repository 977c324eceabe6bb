"""Compile every Triton kernel as every launcher can launch it, for GPUs that need not be here, and read what came out.

The launchers run on meta tensors while the launches are recorded, so that nothing is compiled but what they choose.
Registers, spilt bytes and shared memory are read from the machine code, the width of the accesses to global memory from
the PTX. ``docs/compiled/triton.csv`` is the table of the last ``--write``; without it, exit status 1 on a spill, a
narrower access, or a row that is missing here or there. A launch is compiled again when its kernel, a file that this
imports, the launch or Triton changed since its row was written; --all compiles every one.
"""

import argparse
import csv
import functools
import hashlib
import importlib
import re
import subprocess
import sys
import tempfile
from collections import Counter, namedtuple
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import chain
from math import inf
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in place of this folder, where `import triton` would find this file

import torch  # noqa: E402
import triton  # noqa: E402
from rich.progress import track  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from normkernels import _activations  # noqa: E402
from normkernels._backends import _load  # noqa: E402
from normkernels.ops._normprop import SMOOTH, epilogue  # noqa: E402

TABLE = ROOT / "docs" / "compiled" / "triton.csv"
KEYS = ("kernel", "config", "dtype", "arch")
FIELDS = (*KEYS, "registers", "spills", "shared_bytes", "load_bits", "store_bits", "digest")
ARCHITECTURES = (90, 80, 100)
BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
DTYPES = ((BF16, BF16), (BF16, F32), (F16, F16), (F32, F32), (F64, F64))  # of x, of weight and bias
KINDS = ("IMAGES", "LAST", "POOLED", "LONE", "STABLE", "MIXED", "EXACT", "SHIFTED", "AHEAD", "FEW")
RUNS = ("rows", "near", "side", "far")  # of rows that lie in runs
TRAITS = ("SEPARATE", "TRAINING", "ONE")  # of the recurrent kernels
NAME = {BF16: "bf16", F16: "fp16", F32: "fp32", F64: "fp64", torch.int32: "i32", torch.int64: "i64"}


class Launch(NamedTuple):
    """One kernel as a launcher would specialise it; picklable.

    Of a parameter that is a tuple the kind is ((field, kind), ...), and so is that of a field that is one. A place is
    (parameter,) or (parameter, field), or longer.
    """

    module: str
    kernel: str
    signature: tuple[tuple[str, str | tuple], ...]
    constants: tuple[tuple[tuple[int, ...], str, object], ...]  # place, name, value
    divisible: tuple[tuple[int, ...], ...]
    num_warps: int
    dtype: str

    def key(self, arch: int) -> tuple[str, str, str, str]:
        """What tells its row of the table."""
        return self.kernel, self.config, self.dtype, f"sm_{arch}"

    def digest(self, arch: int, version: str = triton.__version__) -> str:
        """Of all that its machine code depends on, by that version of Triton."""
        text = f"{code(self.module)} {self} {arch} {version}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def config(self) -> str:
        given = {}
        for _, name, value in self.constants:
            given |= value._asdict() if isinstance(value, tuple) else {name: value}
        tile = [k for k in given if k in ("BLOCK_A", "BLOCK_K", "BLOCK_B", "BLOCK_R", "BLOCK_G")]
        tile = [given[k] for k in tile] or [given.get("BLOCK_M", 1), given["BLOCK_N"]]
        words = ["x".join(map(str, tile)), f"{self.num_warps} warps"]
        words += [f"align {given['ALIGN']}"] if "ALIGN" in given else []
        words += [f"{given['SEGMENTS']} segments"] if "SEGMENTS" in given else []
        words += [f"{given['PIECES']} pieces"] if given.get("PIECES", 1) > 1 else []
        words += [f"{given['TILES']} tiles"] if given.get("TILES", 1) > 1 else []
        words += [f"{given['STAGES']} stages"] if given.get("STAGES", 1) > 1 else []
        words += [k.lower() for k in (*KINDS, *TRAITS) if given.get(k)]
        words += [f"parts of {given['PART']}"] if "PART" in given else []
        words += [f"{given['PER']} gates"] if "PER" in given else []
        words += ["clamp"] if given.get("CLAMP", inf) != inf else []
        words += [f"p {given['P']:g}"] if "P" in given else []
        words += ["no mean"] if given.get("CENTER") is False else []
        multiples = {self.signature[i][0] for i, *field in self.divisible if not field}
        sizes = [k for k, kind in self.signature if k in ("N", "S") and kind == "i32" and "BLOCK_N" in given]
        words += [f"{k} % 16" for k in sizes if k not in multiples]
        words += [given["ACT"]] if given.get("ACT", "identity") != "identity" else []
        words += ["runs"] if any(in_runs(kind) for _, kind in self.signature) else []
        absent = [k.lower() for k, v in given.items() if v is None and k not in RUNS]
        return " ".join(words + ([f"no {','.join(absent)}"] if absent else []))


def in_runs(kind: str | tuple) -> bool:
    """Whether rows of that argument, or of a field of it, lie in runs."""
    return isinstance(kind, tuple) and any((k in RUNS and v != "constexpr") or in_runs(v) for k, v in kind)


def path(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


@functools.cache
def code(module: str) -> str:
    """The module and every one of Triton's here that it imports, as a digest."""
    found, left = {}, [module]
    while left:
        name = left.pop()
        found[name] = path(name).read_text()
        for source, names in re.findall(r"from (normkernels\._backends\.triton\.[\w.]+) import ([\w, ]*)", found[name]):
            imported = {source, *(f"{source}.{module}" for module in names.split(", "))}
            left += {name for name in imported if path(name).is_file()} - set(found)
    return hashlib.sha256("".join(found[name] for name in sorted(found)).encode()).hexdigest()


class Channels(NamedTuple):
    """A call of the channel family: x as (N, C, S), the statistics' shape, and whether the channels lie last."""

    x: tuple[int, int, int]
    statistics: tuple[int, int]
    last: bool = False


# what one program holds, small and as large as may be, forward and backward, aligned or not; what is split
HELD = (
    Channels((4, 64, 49), (4, 64)),
    Channels((4, 64, 196), (4, 64)),
    Channels((4, 64, 4095), (4, 64)),
    Channels((4, 64, 8191), (4, 64)),
    Channels((4, 64, 8192), (4, 64)),
    Channels((4, 64, 16384), (4, 64)),
    Channels((4, 64, 32768), (4, 64)),
    Channels((4, 256, 64), (4, 256), True),
    Channels((4, 256, 256), (4, 256), True),
    Channels((4, 256, 512), (4, 256), True),
    Channels((4, 33, 64), (4, 33), True),
    Channels((4, 256, 1024), (4, 32)),
    Channels((4, 256, 2048), (4, 32)),
    Channels((4, 256, 4096), (4, 32)),
    Channels((4, 256, 256), (4, 32), True),
    Channels((4, 256, 512), (4, 32), True),
    Channels((4, 320, 100), (4, 32), True),
    Channels((32, 256, 49), (1, 256)),
    Channels((32, 256, 256), (1, 256)),
    Channels((64, 256, 256), (1, 256)),
)
SHARED = (
    Channels((32, 256, 3136), (1, 256)),
    Channels((1, 256, 100352), (1, 256), True),
    Channels((4, 128, 262144), (4, 32)),
    Channels((4, 128, 262144), (4, 32), True),
    Channels((4, 33, 62501), (4, 33)),
    Channels((512, 64, 49), (1, 64)),
)
SMALL = Channels((32, 256, 16), (1, 256))


# online norm: samples of planes, held or split, aligned or not, few and many; then samples of one value
SAMPLES = (
    Channels((32, 64, 1024), (32, 64)),
    Channels((2, 256, 12544), (2, 256)),
    Channels((4, 32, 262144), (4, 32)),
    Channels((512, 33, 49), (512, 33)),
    Channels((32, 64, 1024), (32, 64), True),
    Channels((1, 64, 12544), (1, 64), True),
    Channels((128, 1024, 1), (128, 1024), True),
    Channels((4096, 12, 1), (4096, 12), True),
    Channels((2, 65, 1), (2, 65), True),
)


def specialise(kernel: JITFunction, args: tuple, kwargs: dict, dtype: str) -> Launch:
    """What Triton makes of these arguments: None and 1 are constants, multiples of 16 marked, floats as annotated."""
    given = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
    signature, constants, divisible = [], [], []

    def kind(place: tuple[int, ...], name: str, value, plain: bool) -> str | tuple:
        if isinstance(value, tuple):
            fields = enumerate(zip(value._fields, value, strict=True))
            return tuple((field, kind((*place, k), field, v, plain)) for k, (field, v) in fields)
        if value is None or (isinstance(value, int) and value == 1 and not plain):
            constants.append((place, name, value))
            return "constexpr"
        tensor = isinstance(value, torch.Tensor)
        if tensor or (value % 16 == 0 and not plain):  # the allocator aligns every tensor
            divisible.append(place)
        return "*" + NAME[value.dtype] if tensor else "i32" if value < 2**31 else "i64"

    for i, parameter in enumerate(kernel.params):
        name, value = parameter.name, given[parameter.name]
        if parameter.is_constexpr:
            constants.append(((i,), name, value))
            found = "constexpr"
        elif parameter.annotation_type:  # a float
            found = parameter.annotation_type
        else:
            found = kind((i,), name, value, parameter.do_not_specialize)
        signature.append((name, found))
    words = tuple(signature), tuple(constants), tuple(divisible)
    return Launch(kernel.fn.__module__, kernel.fn.__name__, *words, kwargs["num_warps"], dtype)


def source(launch: Launch) -> ASTSource:
    """What Triton compiles."""
    kernel = getattr(importlib.import_module(launch.module), launch.kernel)

    def named(name: str, kind: str | tuple):
        if isinstance(kind, str):
            return kind
        return namedtuple(name, dict(kind))(*(named(field, k) for field, k in kind))

    kinds = {name: named(name, kind) for name, kind in launch.signature}
    constants = {place: value for place, _, value in launch.constants}
    return ASTSource(kernel, kinds, constants, {place: [["tt.divisibility", 16]] for place in launch.divisible})


@contextmanager
def recording(names: str) -> Iterator[list[Launch]]:
    """Kernels launched inside are listed, not run."""
    launches = []
    run, JITFunction.run = (
        JITFunction.run,
        lambda kernel, *args, grid, warmup, **kwargs: launches.append(specialise(kernel, args, kwargs, names)),
    )
    try:
        yield launches
    finally:
        JITFunction.run = run


def run(op: str, *args) -> None:
    """Triton's launcher of an op."""
    _load("triton", op, "cuda")(*args)


def record(
    op: str, x: torch.dtype, w: torch.dtype, N: int, activation: str = "identity", extras: bool = True, S: int = 3136,
    samples: int = 0, gated: bool = False, runs: bool = False, rows: int = 64,
) -> list:  # fmt: skip
    """The launches of one forward and one backward call, with every optional tensor or with weight and bias alone.

    runs: of rows at three distances, as tokens of each head of packed queries lie.
    """
    stat = F64 if x == F64 else F32
    shape, stats = ((rows, N), (rows,)) if op != "layer_norm_2d" else ((4, N, S), (4, S))

    def new(dtype, shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    t, extra = new(x, shape), new(x, shape) if extras else None
    given = new(x, (4, 4, 4, N)).transpose(1, 2) if runs else t
    table = (samples, N) if samples else (N,)
    weight, bias, mean, rstd = new(w, table), new(w, table), new(stat, stats), new(stat, stats)
    shift, gate = bias if samples else None, t if gated else None
    names, end = NAME[x] + ("" if x == w else "/" + NAME[w]), (0.0, activation, 0.01)
    with recording(names) as launches:
        if op == "rms_norm":
            run("rms_norm_fwd", given, extra, weight, shift, gate, t, extra, rstd, 1e-5, *end)
            run("rms_norm_bwd", given, extra, given, weight, shift, gate, rstd, t, weight, shift, gate, *end)
        else:
            gates = [gate] if op == "layer_norm" else []
            run(op + "_fwd", given, extra, weight, bias, *gates, t, extra, mean, rstd, 1e-5, *end)
            run(op + "_bwd", given, extra, given, weight, bias, *gates, mean, rstd, t, weight, bias, *gates, *end)
    return launches


def record_channels(
    x: torch.dtype, w: torch.dtype, case: Channels, activation: str = "identity", gated: bool = False
) -> list[Launch]:
    """The same of the channel family: of batch norm, or of group norm, whose kernels are instance norm's too."""
    (N, C, S), (B, G), last = case
    stat, op = F64 if x == F64 else F32, "batch_norm" if (B, G) == (1, C) else "group_norm"

    def new(dtype, *shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    t, weight, mean = new(x, *((N, S, C) if last else (N, C, S))), new(w, C), new(stat, B, G)
    affine, end = (weight, weight), (_activations.GATED * gated + activation, 0.01, last)
    with recording(NAME[x] + ("" if x == w else "/" + NAME[w])) as launches:
        run(f"{op}_fwd", t, t, *affine, t, mean, mean, 1e-5, *end)
        for training in (True, False):
            run(f"{op}_bwd", t, t, t, *affine, mean, mean, t, t, weight, weight, 1e-5, training, *end)
        if activation == "silu" and not gated:
            run(f"{op}_fwd", t, None, None, None, t, mean, mean, 1e-5, *end)
            run(f"{op}_bwd", t, t, None, *affine, mean, mean, t, None, None, None, 1e-5, True, *end)
        if B == 1 and G == C and w == stat:
            run("batch_norm_sums", t, t, t, *affine, mean, mean, weight, weight, 1e-5, *end)
    return launches


def record_stateful(
    op: str, x: torch.dtype, w: torch.dtype, case: Channels, activation: str, variant: int
) -> list[Launch]:
    """The same of batch renorm, streaming norm (variant: p) and online norm (0: layer scaling, 1: clamp and stable)."""
    (N, C, S), stats, last = case
    stat = F64 if x == F64 else F32

    def new(dtype, *shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    def pair(*shape):
        return new(stat, *shape), new(stat, *shape)

    t, weight, row, pairs, scalar = new(x, *((N, S, C) if last else (N, C, S))), new(w, C), pair(C), pair(2, C), pair()
    affine, end = (weight, weight), (activation, 0.01, last)
    forward, backward = functools.partial(run, op + "_fwd"), functools.partial(run, op + "_bwd")
    with recording(NAME[x] + ("" if x == w else "/" + NAME[w])) as launches:
        if op == "batch_renorm":
            tables = pair(1, C)
            forward(t, t, *affine, *tables, *scalar, t, *tables, *tables, 1e-5, *end)
            backward(t, t, t, *affine, *tables, *tables, t, t, *affine, 1e-5, *end)
        elif op == "streaming_norm":
            counts, deviations = new(stat, 2), None if variant == 2 else row[0]
            forward(
                t, t, *affine, *pairs, counts, t, *pairs, deviations, pairs[0], 0.7, 0.3, float(variant), 1e-5, *end
            )
            call = (t, t, t, *affine, *pairs, deviations, *pairs, counts, t, t, *affine, pairs[0])
            backward(*call, 0.7, 0.0, 0.3, float(variant), 1e-5, *end)
        else:
            tables, rates, clamp = pair(*stats), new(F64, N), 5.0 if variant else inf
            averages, gain = (None, None) if S == 1 else pair(*stats), None if variant else new(stat, N)
            forward(
                t, t, *affine, *row, rates, t, *tables, *averages, gain, *row, 1e-5, 1e-5, clamp, *end
            )  # fmt: skip
            call = (t, t, t, *affine, *tables, *averages, gain)
            backward(*call, *row, t, t, *affine, *row, 0.99, bool(variant), clamp, *end)
            if variant:
                backward(*call, None, None, t, t, *affine, None, None, 0.99, False, clamp, *end)
    return launches


def record_filters(v: torch.dtype, w: torch.dtype, N: int, center: bool) -> list[Launch]:
    """The same of weight standardisation, or without a mean of weight norm; all gains are in the type of v."""
    stat = F64 if v == F64 else F32

    def new(dtype, *shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    t, scaled, gain, row = new(v, 64, N), new(w, 64, N), new(v, 64), new(stat, 64)
    with recording(NAME[v] + ("" if v == w else "/" + NAME[w])) as launches:
        if center:
            run("weight_standardization_fwd", t, gain, t, row, row, 1e-5)
            run("weight_standardization_bwd", t, t, gain, row, row, t, gain)
        else:
            run("weight_norm_fwd", t, gain, scaled, row)
            run("weight_norm_bwd", scaled, t, gain, row, t, gain)
            if v == w:
                run("weight_norm_project", [t])
                run("weight_norm_project", [t, new(v, 64, N + 1)])
    return launches


def record_normprop(x: torch.dtype, w: torch.dtype, case: Channels, activation: str) -> list[Launch]:
    """The same of NormProp's epilogue."""
    (N, C, S), _, last = case
    t = torch.empty((N, S, C) if last else (N, C, S), dtype=x, device="meta")
    row = torch.empty(C, dtype=w, device="meta")
    slope, e = row if activation == "prelu" else None, epilogue(activation, 0.01, x)
    with recording(NAME[x] + ("" if x == w else "/" + NAME[w])) as launches:
        run("normprop_fwd", t, row, slope, t, *e[:4], *e.kinks, *e.bounds, last)
        run("normprop_bwd", t, t, row, slope, t, row, slope, *e[:4], *e.bounds, e.from_output, last)
    return launches


def record_recurrent(
    op: str, x: torch.dtype, w: torch.dtype, N: int, separate: bool, cell: str | None = "output", groups=None,
    batch: int = 64, training: bool = True,
) -> list[Launch]:  # fmt: skip
    """The same of the recurrent family, of one step."""
    stat, kind, columns = F64 if x == F64 else F32, op.rpartition("_")[2], op.startswith("batch")
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    groups = groups or [gates]

    def new(dtype, *shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    t, h, W, p, wide = (
        new(x, batch, gates * N),
        new(x, batch, N),
        new(x, gates * N, N),
        new(w, gates * N),
        new(stat, batch, N),
    )
    s = (new(stat, 1, gates * N) if columns else new(stat, batch, len(groups)),) * 2
    cells = (wide, wide if cell == "carried" else None)
    cs = (None if cell is None else new(stat, 1, N) if columns else new(stat, batch, 1),) * 2
    cp, da = (new(w, N) if cell else None,) * 2, t if separate else None
    form, eps = [training] if columns else [] if kind == "rnn" else [groups], [1e-5] if columns else []
    forward, backward = functools.partial(run, op + "_fwd"), functools.partial(run, op + "_bwd")
    with recording(NAME[x] + ("" if x == w else "/" + NAME[w])) as launches:
        if kind == "rnn":
            forward(t, W, p, p, None, h, h, t, *s, *form, separate, "tanh", 1e-5, False)
            backward(h, h, t, *s, W, p, None, h, t, da, p, p, *form, "tanh", *eps, False)
        elif kind == "gru":
            forward(t, W, p, p, None, h, h, t, *s, t, *form, separate, 1e-5, False)
            backward(h, t, h, t, *s, W, p, p, None, h, t, da, p, p, *form, False)
        else:
            forward(t, W, p, p, *cp, None, h, wide, h, t, *s, t, *cells, *cs, *form, separate, 1e-5, False)
            backward(
                h, t, *cells, *cs, wide, t, *s, W, p, *cp, None, h, wide, t, da, p, p, *cp, *form, *eps, False
            )  # fmt: skip
    return launches


def lengths(op: str, arch: int) -> tuple[int, ...]:
    """One N for every launch size: powers of two, between them, rows of several tiles, and odd ones."""
    if op == "layer_norm_2d":
        return tuple(2**i for i in range(4, 11)) if arch == 90 else (64, 256, 512, 1024)
    odd, between = (33, 777, 3071, 16383, 49151, 513, 1025, 6143, 8193), (6144, 768, 12288, 20000)
    if arch == 90:
        return (*(2**i for i in range(3, 16)), 49152, *odd, *between)
    return (128, 2048, 8192, 32768, 49152, *odd[5:], between[0])


def launches(arch: int) -> list[Launch]:
    """What can be launched, all of it on sm_90; elsewhere the sizes with the most registers."""
    found = []
    for op in ("layer_norm", "rms_norm", "layer_norm_2d"):
        dtypes = DTYPES if arch == 90 and op == "layer_norm" else ((BF16, F32), (F32, F32), (F64, F64))
        for x, w in dtypes[: 2 if arch != 90 else None]:
            found += chain(*(record(op, x, w, N) for N in lengths(op, arch)))
    for op in ("layer_norm", "rms_norm"):  # long rows that programs share
        found += chain(*(record(op, x, F32, N, rows=r) for x in (BF16, F32) for N in (65536, 65537) for r in (1, 2)))
    found += record("layer_norm", BF16, F32, 65536, "silu", samples=2, gated=True, rows=2)
    for N in (128, 777, 1152, 4096, 16384):
        found += record("layer_norm", BF16, F32, N, samples=8) + record("rms_norm", BF16, F32, N, samples=8)
    for N in (64, 128, 777, 20000):
        found += record("layer_norm", BF16, F32, N, runs=True) + record("rms_norm", F32, F32, N, runs=True)
    for N in (128, 777, 1152, 4096, 20000):
        found += chain(*(record(op, BF16, F32, N, "silu", gated=True) for op in ("layer_norm", "rms_norm")))
    if arch == 90:
        found += record("rms_norm", F32, F32, 2048, "sigmoid", gated=True) + record(
            "layer_norm", BF16, F32, 256, gated=True
        )
        found += record("layer_norm", BF16, BF16, 4096, extras=False) + record(
            "rms_norm", BF16, BF16, 4096, extras=False
        )
        for name in _activations.ACTIVATIONS:
            found += record("layer_norm", BF16, F32, 4096, name) + record("layer_norm", F64, F64, 1024, name)
        found += record("layer_norm", BF16, F32, 2047, "gelu") + record("layer_norm", F32, F32, 2047, "gelu")
        for S in (3136, 196, 49):
            found += chain(
                *(record("layer_norm_2d", x, F32, N, "gelu", S=S) for N in (64, 256, 1024) for x in (BF16, F32))
            )
    found += chain(*(record_channels(BF16, F32, case) for case in HELD))
    found += chain(*(record_channels(BF16, F32, case, "silu") for case in SHARED))
    found += chain(*(record_channels(BF16, F32, case, "silu", True) for case in (HELD[6], HELD[11], *SHARED[2:5])))
    if arch == 90:
        found += chain(*(record_channels(F32, F32, case) for case in HELD + SHARED))
        found += chain(*(record_channels(F64, F64, case, "silu") for case in HELD[6:8] + SHARED))
        found += chain(*(record_channels(F32, F32, case, gated=True) for case in (*HELD[12:14], SHARED[2])))
    return list(dict.fromkeys(found + stateful(arch) + weights(arch) + recurrent(arch)))


def stateful(arch: int) -> list[Launch]:
    """The launches of the normalisers that carry a state."""
    dtypes = ((BF16, F32), (F32, F32), (F64, F64)) if arch == 90 else ((BF16, F32),)
    found = []
    for x, w in dtypes:
        for case in (*HELD[-3:], Channels((1, 256, 256), (1, 256), True), *SHARED[:2]):
            found += record_stateful("batch_renorm", x, w, case, "silu", 0)
            found += chain(*(record_stateful("streaming_norm", x, w, case, "silu", p) for p in (1, 2, 3)))
        found += record_stateful("streaming_norm", x, w, SHARED[0], "identity", 1.7)
        act = "silu" if x == BF16 else "identity"  # a batch that one program holds, backward too
        found += chain(*(record_stateful("streaming_norm", x, w, SMALL, act, p) for p in (1, 2, 3)))
        found += chain(*(record_stateful("online_norm", x, w, case, "silu", v) for case in SAMPLES for v in (0, 1)))
    return found


def weights(arch: int) -> list[Launch]:
    """The launches of the normalisers of weights: filters held, small, large and unaligned, and split; the epilogue."""
    found = chain(*(record_filters(F32, F32, N, True) for N in (4096, 8192, 32768, 40000)))
    found = [*found, *chain(*(record_normprop(BF16, F32, SHARED[0], name) for name in ("gelu", "prelu")))]
    if arch != 90:
        return found
    for N in (27, 576, 4096, 8192, 32768, 40000, 8191):
        found += record_filters(F32, F32, N, True) + record_filters(F32, F32, N, False)
    found += chain(*(record_filters(F32, BF16, N, False) for N in (576, 8192, 40000, 8191)))
    found += chain(*(record_filters(BF16, BF16, N, True) for N in (576, 8192, 40000, 8191)))
    found += chain(*(record_filters(F64, F64, N, True) for N in (576, 4096, 40000, 2047)))
    found += chain(*(record_filters(v, v, 576, False) for v in (BF16, F64)))
    for name in (*_activations.ACTIVATIONS, "prelu"):
        found += record_normprop(BF16, F32, SHARED[0], name)
    for name in ("relu", *SMOOTH, "gelu", "prelu"):
        found += record_normprop(F32, F32, SHARED[0], name)
    found += chain(*(record_normprop(F64, F64, SHARED[0], name) for name in ("softplus", "mish", "prelu")))
    for case in (SHARED[1], *SHARED[4:]):
        found += record_normprop(BF16, F32, case, "relu") + record_normprop(BF16, F32, case, "prelu")
    return found


def recurrent(arch: int) -> list[Launch]:
    """The launches of the recurrent family: a step in one tile or in several, aligned or not, and each form of it."""
    found = []
    for op in ("layer_norm_rnn", "layer_norm_gru", "layer_norm_lstm", "batch_norm_rnn", "batch_norm_lstm"):
        of_each = [1] * (3 if op.endswith("gru") else 4 if op.endswith("lstm") else 1)
        found += record_recurrent(op, BF16, F32, 1024, True)
        if arch != 90:
            continue
        found += record_recurrent(op, BF16, F32, 1024, False, "carried")
        found += record_recurrent(op, BF16, BF16, 256, True, None, of_each, 16, training=False)
        found += record_recurrent(op, BF16, BF16, 4096, False, groups=of_each, batch=1000)
        found += record_recurrent(op, BF16, F32, 33, False, None)
        found += record_recurrent(op, F32, F32, 1024, True) + record_recurrent(op, F32, F32, 33, True, "carried")
        found += record_recurrent(op, F64, F64, 1024, False)
    return [*found, *(record_recurrent("layer_norm_gru", BF16, F32, 1024, True, groups=[2, 1]) if arch == 90 else [])]


def width(ptx: str, access: str) -> int:
    """Bits of the accesses ``ld`` or ``st`` to global memory that move the most bytes."""
    bits = Counter()
    for vector, size in re.findall(rf"\b{access}\.global[\w:.]*?(?:\.v(\d))?\.[bfus](\d+)\b", ptx):
        bits[int(vector or 1) * int(size)] += int(vector or 1) * int(size)
    if access == "ld":  # of a pipelined loop
        bits.update({128: 128 * len(re.findall(r"\bcp\.async\.cg\.shared\.global", ptx))})
    return max(bits, key=bits.__getitem__, default=0)


def compile_one(launch: Launch, arch: int) -> dict[str, str]:
    """The row of the table for one launch on one architecture."""
    made = triton.compile(source(launch), target=GPUTarget("cuda", arch, 32), options={"num_warps": launch.num_warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = dict(
            re.findall(r"(\w+):(\d+)", subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        )
    row = {
        **dict(zip(KEYS, launch.key(arch), strict=True)),
        "registers": usage["REG"],
        "spills": int(usage["STACK"]) + int(usage["LOCAL"]),
        "shared_bytes": made.metadata.shared,
        "load_bits": width(made.asm["ptx"], "ld"),
        "store_bits": width(made.asm["ptx"], "st"),
        "digest": launch.digest(arch),
    }
    return {k: str(v) for k, v in row.items()}


def complaints(rows: list[dict[str, str]], committed: list[dict[str, str]]) -> list[str]:
    """Spills, and what is worse than, or missing from, the committed table."""
    before = {tuple(row[k] for k in KEYS): row for row in committed}
    found = []
    for row in rows:
        key = tuple(row[k] for k in KEYS)
        name = ", ".join(key)
        if row["spills"] != "0":
            found.append(f"{name}: spills {row['spills']} bytes")
        if key not in before:
            found.append(f"{name}: not in the table")
            continue
        for field in ("load_bits", "store_bits"):
            if int(row[field]) < int(before[key][field]):
                found.append(f"{name}: {field} {row[field]}, was {before[key][field]}")
    here = {tuple(row[k] for k in KEYS) for row in rows}
    return found + [f"{', '.join(key)}: in the table, but no longer launched" for key in before if key not in here]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table instead of comparing with it")
    parser.add_argument("--all", action="store_true", help="compile what did not change too")
    parser.add_argument("--jobs", type=int, default=2, help="processes that compile (default: %(default)s)")
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES, help="compute capabilities, e.g. 90")
    args = parser.parse_args()
    committed = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    known = {} if args.all else {(*(row[k] for k in KEYS), row.get("digest")): row for row in committed}
    work, rows = [], []
    for arch in args.arch:
        for launch in launches(arch):
            row = known.get((*launch.key(arch), launch.digest(arch)))
            if row:
                rows.append(row)
            else:
                work.append((launch, arch))
    same = len(rows)
    with (
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(args.jobs, initializer=set_cache, initargs=(cache,)) as pool,
    ):
        futures = [pool.submit(compile_one, *item) for item in work]
        rows += [f.result() for f in track(as_completed(futures), "compiling", len(futures))]
    names = {f"sm_{arch}" for arch in args.arch}
    before = rows if args.write else [row for row in committed if row["arch"] in names]
    if args.write:
        rows = sorted(rows, key=lambda row: [natural(row[k]) for k in KEYS])
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows + [row for row in committed if row["arch"] not in names])
    found = complaints(rows, before)
    sys.stdout.writelines(line + "\n" for line in found)
    sys.stdout.write(f"{len(work)} compilations, {same} launches as in the table, {len(found)} complaints\n")
    return 1 if found else 0


def natural(text: str) -> list:
    """A sort key in which 8x128 comes before 16x128."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def set_cache(folder: str) -> None:
    triton.knobs.cache.dir = folder


if __name__ == "__main__":
    sys.exit(main())
