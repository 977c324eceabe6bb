"""A launch of a Triton kernel as Triton specialises it, recorded from a launcher on meta tensors."""

import functools
import hashlib
import importlib
import re
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from normkernels._backends import _load
from normkernels._backends.triton.base import clusters

ROOT = Path(__file__).resolve().parents[2]
BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
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
    num_ctas: int = 1  # blocks of a program, a cluster of them

    @property
    def options(self) -> dict[str, int]:
        """What Triton's compiler is given beside the source."""
        return {"num_warps": self.num_warps} | ({"num_ctas": self.num_ctas} if self.num_ctas > 1 else {})

    def key(self, arch: int) -> tuple[str, str, str, str]:
        """What tells its row of the table."""
        return self.kernel, self.config, self.dtype, f"sm_{arch}"

    def digest(self, arch: int, version: str = triton.__version__) -> str:
        """Of all that its machine code depends on, by that version of Triton."""
        launch = str(self).replace(", num_ctas=1)", ")")  # which needs no word
        text = f"{code(self.module)} {launch} {arch} {version}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def config(self) -> str:
        given = {}
        for _, name, value in self.constants:
            given |= value._asdict() if isinstance(value, tuple) else {name: value}
        tile = [k for k in given if k in ("BLOCK_A", "BLOCK_K", "BLOCK_B", "BLOCK_R", "BLOCK_G")]
        tile = [given[k] for k in tile] or [given.get("BLOCK_M", 1), given["BLOCK_N"]]
        words = ["x".join(map(str, tile)), f"{self.num_warps} warps"]
        words += [f"{self.num_ctas} blocks"] if self.num_ctas > 1 else []
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
    return Launch(
        kernel.fn.__module__, kernel.fn.__name__, *words, kwargs["num_warps"], dtype, kwargs.get("num_ctas", 1)
    )


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


@contextmanager
def allowing(version: str, arch: int) -> Iterator[None]:
    """Programs inside may have as many blocks as that version of Triton and that architecture let them."""
    blocks, clusters.blocks = clusters.blocks, lambda _: clusters.most(version, arch // 10)
    try:
        yield
    finally:
        clusters.blocks = blocks


def run(op: str, *args) -> None:
    """Triton's launcher of an op."""
    _load("triton", op, "cuda")(*args)
