"""From the facts of a launch to its time: every number that is assumed is here."""

import math
from typing import NamedTuple

from .compiled import Code


class Device(NamedTuple):
    """bandwidth: of a copy, bytes a second."""

    name: str
    bandwidth: float
    multiprocessors: int = 132
    l2_bytes: int = 50 * 2**20


H100, H200 = Device("H100", 3.0e12), Device("H200", 4.3e12)
CLOCK, SCHEDULERS, SINGLE = 1.7e9, 4, 2.5  # Hz; instructions a cycle; cycles an instruction of a warp alone
LAUNCH, START, MEMORY, CACHE, BARRIER = 1.5e-6, 0.4e-6, 1.0e-6, 0.45e-6, 0.05e-6  # s
OWN, L2 = 110e9, 5.5e12  # bytes a second: of one program, and of the cache
L2_KEPT = 25e6  # bytes of one sweep that the next finds
REGISTERS, WARPS, BLOCKS, SHARED = 65536, 64, 32, 227 * 1024  # of a multiprocessor
LEAST_WAIT = 0.05e-6
MEETING = 0.25e-6  # s: a barrier of a cluster, with an answer of another block's shared memory
APART = 4  # multiprocessors that are in no cluster of four or eight: those of a GPC beyond 16


class Work(NamedTuple):
    """What a launch does: bytes in all, tiles of a program (0: no loop), and the share of reads that L2 answers.

    before: bytes of a program that L2 answers before its tiles; it waits for them, and for the barriers of their sums.
    turns: tiles of a program on average, where most have fewer than steps.
    cluster: blocks of one, each of which counts as a program.
    statistics: rows or channels whose sums a program, or a cluster, takes at once.
    """

    programs: int
    read: float
    written: float
    steps: int = 0
    cached: float = 0.0
    before: float = 0.0
    turns: float | None = None
    cluster: int = 1
    statistics: float = 1.0


class Launched(NamedTuple):
    """A launch, and the warps of a block."""

    code: Code
    work: Work
    warps: int = 8


def resident(code: Code, warps: int) -> int:
    """Programs that a multiprocessor holds at once."""
    registers = -(-code.registers // 8) * 8
    by_shared = SHARED // (code.shared_bytes + 1024)
    return max(1, min(REGISTERS // (registers * 32 * warps), WARPS // warps, BLOCKS, by_shared))


def latency(work: Work) -> float:
    """Seconds until what is asked for arrives."""
    return CACHE if work.cached >= 0.99 else MEMORY


def moving(device: Device, work: Work) -> float:
    """Seconds of the bytes alone."""
    from_cache = work.read * work.cached + work.programs * work.before
    return (work.read * (1 - work.cached) + work.written) / device.bandwidth + from_cache / L2


def least(device: Device, work: Work) -> float:
    """Seconds of a launch whose code costs nothing: its bytes, or one answer of memory."""
    return LAUNCH + max(moving(device, work), START + latency(work))


def program(code: Code, warps: int, work: Work) -> float:
    """Seconds of one program from its start to its end, when nothing else limits it."""

    def issue(instructions: float) -> float:
        return instructions * max(SINGLE, warps / SCHEDULERS) / CLOCK

    answer, read = latency(work), work.read / work.programs
    if not work.steps:
        waits = BARRIER * code.barriers + MEETING * code.meetings
        return START + answer + read / OWN + issue(code.instructions) + waits
    each = issue(code.loop) + BARRIER * code.loop_barriers + MEETING * code.loop_meetings
    ahead = each * (code.prefetches + 1 - code.first_load)  # of its use the next tile is asked for
    wait = max(answer + read / work.steps / OWN + 0.1e-6 - ahead, LEAST_WAIT)
    first = issue(code.instructions - code.loop)
    if work.before:
        merging, tile = CACHE + work.before / OWN, answer + read / OWN
        first += BARRIER * code.barriers
        if not code.loop:  # asks for its tile before it merges
            return START + max(merging, tile) + first
        first += merging
    return START + answer + first + work.steps * (each + wait)


def executed(code: Code, work: Work) -> float:
    """Instructions of a warp."""
    turns = work.steps if work.turns is None else work.turns
    return code.instructions + code.loop * max(turns - 1, 0)


def seconds(device: Device, code: Code, warps: int, work: Work) -> float:
    """Of one launch."""
    multiprocessors = device.multiprocessors - (APART if work.cluster > 2 else 0)
    at_once = min(resident(code, warps), math.ceil(work.programs / multiprocessors))
    waves = work.programs / (multiprocessors * at_once)
    blocks = program(code, warps, work) * (max(1.0, math.ceil(waves)) if waves < 4 else waves + 0.3)
    issue = work.programs * warps * executed(code, work) / (device.multiprocessors * SCHEDULERS * CLOCK)
    return LAUNCH + sum(t**4 for t in (blocks, moving(device, work), issue)) ** 0.25


def taken(device: Device, launches: list[Launched]) -> float:
    """Seconds of launches one after the other."""
    return sum(seconds(device, one.code, one.warps, one.work) for one in launches)


def copy(device: Device, size: float) -> float:
    """Seconds of a copy that reads and writes so many bytes in all."""
    return LAUNCH + size / device.bandwidth
