"""Calls of each family on meta tensors, whose launches are recorded: one forward, one backward."""

import functools
from math import inf
from typing import NamedTuple

import torch

from normkernels._activations import GATED
from normkernels.ops._normprop import epilogue
from tests.compiled.launches import F32, F64, NAME, Launch, recording, run


class Channels(NamedTuple):
    """A call of the channel family: x as (N, C, S), the statistics' shape, and whether the channels lie last."""

    x: tuple[int, int, int]
    statistics: tuple[int, int]
    last: bool = False


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
    affine, end = (weight, weight), (GATED * gated + activation, 0.01, last)
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
