"""Every launch that is compiled: dtypes and sizes through every branch of the launchers."""

from itertools import chain

import triton

from normkernels import _activations
from normkernels.ops._normprop import SMOOTH
from tests.compiled.calls import (
    Channels,
    record,
    record_channels,
    record_filters,
    record_normprop,
    record_recurrent,
    record_stateful,
)
from tests.compiled.launches import BF16, F16, F32, F64, Launch, allowing

DTYPES = ((BF16, BF16), (BF16, F32), (F16, F16), (F32, F32), (F64, F64))  # of x, of weight and bias
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


def lengths(op: str, arch: int) -> tuple[int, ...]:
    """One N for every launch size: powers of two, between them, rows of several tiles, and odd ones."""
    if op == "layer_norm_2d":
        return tuple(2**i for i in range(4, 11)) if arch == 90 else (64, 256, 512, 1024)
    odd, between = (33, 777, 3071, 16383, 49151, 513, 1025, 6143, 8193), (6144, 768, 12288, 20000)
    if arch == 90:
        return (*(2**i for i in range(3, 16)), 49152, *odd, *between)
    return (128, 2048, 8192, 32768, 49152, *odd[5:], between[0])


def launches(arch: int, version: str = triton.__version__) -> list[Launch]:
    """What that version of Triton can launch, all of it on sm_90; elsewhere the sizes with the most registers."""
    with allowing(version, arch):
        found = rows(arch) + channels(arch) + stateful(arch) + weights(arch) + recurrent(arch)
    return list(dict.fromkeys(found))


def rows(arch: int) -> list[Launch]:
    """The launches of rows."""
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
    return found


def channels(arch: int) -> list[Launch]:
    """The launches of batch, group and instance norm."""
    found = [launch for case in HELD for launch in record_channels(BF16, F32, case)]
    found += chain(*(record_channels(BF16, F32, case, "silu") for case in SHARED))
    found += chain(*(record_channels(BF16, F32, case, "silu", True) for case in (HELD[6], HELD[11], *SHARED[2:5])))
    if arch == 90:
        found += chain(*(record_channels(F32, F32, case) for case in HELD + SHARED))
        found += chain(*(record_channels(F64, F64, case, "silu") for case in HELD[6:8] + SHARED))
        found += chain(*(record_channels(F32, F32, case, gated=True) for case in (*HELD[12:14], SHARED[2])))
    return found


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
