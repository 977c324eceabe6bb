"""What torch's own kernels would take by the model at the least, beside ours at the least: launches, bytes and blocks.

The model reads machine code, and torch's is not here; so neither side's code counts. A launch takes as long as its
bytes, or as its blocks, a multiprocessor's at a time, which share its path to memory; each is as many answers of memory
as it has to wait for (``shaped``): a lane of torch's, which asks for 2 to 16 bytes in a turn of its loop, is granted
four times 16 at once; ours ask for a tile at once, or for as many as their pipelines hold. Where ours take longer so,
their launches are worse; how much code costs beyond that, ``bars`` says of ours.

As launched by torch 2.13 on CUDA without cuDNN (``aten/src/ATen/native/cuda``), of which blocks, warps:

| op | forward | backward |
|---|---|---|
| rows | M, 4: a row twice | M, 4: dx, a row twice; ceil(N / 32), 1 to 32: x and dy again for the parameters |
| rows, N % 4 | M, 16: moments; M, 8: y | the same |
| batch, planes | C, 16: statistics; small: rstd; as many as fit: y | C, 16: x and dy twice |
| batch, last | ceil(C / 32) times up to 128, 16: statistics; small; as many: y | as many: sums; as many: dx |
| instance | two small: parameters repeated; as batch norm of N C planes | as batch norm; two small: their sums |
| group | N G, 16: statistics; small; elements: y | N C, 16: sums; small, small; elements: dx; small |

Where channels lie last, group and instance norm begin with copies to planes, group norm's backward with two.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .times import BLOCKS, L2_KEPT, LAUNCH, OWN, START, WARPS, Device, Work, latency, moving

MANY = 2048  # blocks of what is launched by elements, or by pieces of planes: enough for any device
FEW, MOST = 64, 64 * 1024  # rows up to which a warp sums the parameters' gradients; beyond which rows are shared out


UNDERWAY = 32 * 4 * 16  # bytes that a warp has asked for at once


class Launched(NamedTuple):
    """A launch, the warps of a block, and how many answers of memory a block waits for, one after the other."""

    work: Work
    warps: int
    answers: float = 1.0

    @classmethod
    def by_lanes(cls, work: Work, warps: int) -> "Launched":
        return cls(work, warps, max(1.0, work.read / work.programs / (warps * UNDERWAY)))


SMALL = Launched(Work(1, 1e3, 1e3), 4)


def shaped(device: Device, made: Launched) -> float:
    """Seconds of a launch whose code costs nothing: of its bytes, or of its blocks."""
    work, warps, answers = made
    at_once = min(BLOCKS, WARPS // warps, math.ceil(work.programs / device.multiprocessors))
    waves = max(1.0, work.programs / (device.multiprocessors * at_once))
    block = START + answers * latency(work) + at_once * (work.before + work.read / work.programs) / OWN
    return LAUNCH + max(moving(device, work), waves * block)


def first(blocks: int, warps: int, read: float, written: float = 0.0) -> Launched:
    return Launched.by_lanes(Work(blocks, read, written), warps)


def again(blocks: int, warps: int, read: float, written: float = 0.0) -> Launched:
    """A sweep over what the one before it read."""
    return Launched.by_lanes(Work(blocks, read, written, cached=min(0.98, L2_KEPT / read)), warps)


def twice(blocks: int, warps: int, read: float, written: float) -> Launched:
    """Blocks that read their part a second time at once."""
    near = min(1.0, L2_KEPT / read * blocks / min(blocks, 132 * WARPS // warps))
    return Launched.by_lanes(Work(blocks, 2 * read, written, cached=near / 2), warps)


def rows(M: int, N: int, size: float) -> tuple[list[Launched], list[Launched]]:
    forward = [twice(M, 4, size, size)] if N % 4 == 0 else [first(M, 16, size), again(M, 8, size, size)]
    blocks, backward = math.ceil(N / 32), [twice(M, 4, 2 * size, size)]
    if M > MOST and blocks < 66:
        partial = 4.0 * N * math.ceil(M / 32)
        sums = [again(MANY, 4, partial)] * 2
        return forward, [*backward, again(blocks * math.ceil(M / 32), 1, 2 * size, 2 * partial), *sums]
    return forward, [*backward, again(blocks, 1 if M < FEW else min(32, M // 8), 2 * size)]


def planes(C: int, size: float) -> tuple[list[Launched], list[Launched]]:
    return [first(C, 16, size), SMALL, again(MANY, 16, size, size)], [twice(C, 16, 2 * size, size)]


def lasting(C: int, positions: int, size: float) -> tuple[list[Launched], list[Launched]]:
    blocks = math.ceil(C / 32) * min(128, max(1, math.ceil(positions / 256)))
    forward = [first(blocks, 16, size), SMALL, again(blocks, 16, size, size)]
    return forward, [first(blocks, 16, 2 * size), again(blocks, 16, 2 * size, size)]


def launches(op: str, shape: Sequence[int], last: bool, size: float, groups: int = 8) -> tuple[list, list]:
    """Of a forward and of a backward; size: bytes of the input."""
    N, C, *rest = shape
    if not rest:
        if op in ("layer_norm", "rms_norm"):
            return rows(N, C, size)
        rest = [1]
    copies = [first(MANY, 16, size, size)] if last else []
    if op == "batch_norm":
        return lasting(C, N * math.prod(rest), size) if last else planes(C, size)
    if op == "instance_norm":
        forward, backward = planes(N * C, size)
        return [*copies, SMALL, SMALL, *forward], [*copies, *backward, SMALL, SMALL]
    forward = [first(N * math.gcd(groups, C), 16, size), SMALL, again(MANY, 16, size, size)]
    backward = [first(N * C, 16, 2 * size), SMALL, SMALL, again(MANY, 16, 2 * size, size), SMALL]
    return [*copies, *forward], [*copies, *copies, *backward]


def taken(device: Device, made: Sequence[Launched]) -> float:
    """Seconds of launches one after the other."""
    return sum(shaped(device, one) for one in made)
