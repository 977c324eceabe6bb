"""The least code that a launch can have: the instructions that its formula needs, by no more than counting them.

A launch keeps its programs, warps, registers, shared memory and tiles; of instructions it has what ``NEEDED`` says, and
its loads are asked for as early as they must be. Tensors are bfloat16 and lie in packs of 16 bytes, sums and parameters
are float32. A compiled kernel has more where accesses are narrower, tiles are padded, values are converted again
because registers are few, places are computed or masked, and what is loaded ahead passes through shared memory.
"""

import math
from typing import NamedTuple

from .times import Launched

PACK, NUMBERS = 8, 4  # values of a tensor, and float32, in 16 bytes
BEGIN, TURN = 4, 3  # block, thread, place and end; the next place, its test and the branch: one for all tensors
TOLD, MET = 3, 4  # a warp's sums to shared memory, a barrier, all of them back; the same of a cluster, with its wait
EARLY = 1000  # turns ahead: as early as need be


class Need(NamedTuple):
    """What the formula of a kernel needs.

    reads, writes: sweeps over x or a tensor like it. A value of each is loaded or stored with those of its pack, and
    converted: one instruction to float32, half of one back, which takes two.
    arithmetic: operations on a value in between, an fma being one.
    sums: of a statistic, which all its threads have to know; each is divided by a count.
    columns: parameters of each column of the tile. lines: sums by column, over rows, that a program leaves: it walks
    down the rows, so it keeps parameters, and every turn has other statistics. Else all turns are of one.
    numbers: of a statistic, loaded or stored.
    """

    reads: int
    writes: int
    arithmetic: int
    sums: int = 0
    columns: int = 0
    lines: int = 0
    numbers: int = 0


# kernel -> with a mean, and without one (RMS norm)
ROWS = {
    # the sum, x - mean, the sum of its squares, times rstd, times w plus b; the sum of squares, times rstd, times w
    "rows_forward_kernel": (Need(1, 1, 5, 2, 2, 0, 2), Need(1, 1, 3, 1, 1, 0, 1)),
    # xhat, g = dy w, their two sums, those by column, dx in two fmas; the same less the sum of g and that of dy
    "rows_backward_kernel": (Need(2, 1, 8, 2, 1, 2, 2), Need(2, 1, 6, 1, 1, 1, 1)),
    # of long rows the same in two parts: the sums of x less what is near its mean, then y
    "rows_long_forward_kernel": (Need(2, 1, 6, 2, 2, 0, 2), Need(2, 1, 3, 1, 1, 0, 1)),
    "rows_forward_moments_kernel": (Need(1, 0, 3, 2), Need(1, 0, 1, 1)),
    "rows_forward_segment_kernel": (Need(1, 1, 3, 0, 2), Need(1, 1, 2, 0, 1)),
    # the sums of a row; then dx and the sums by column
    "rows_long_sums_kernel": (Need(2, 0, 4, 2, 1, 0, 2), Need(2, 0, 3, 1, 1, 0, 1)),
    "rows_long_backward_kernel": (Need(2, 1, 6, 0, 1, 2, 4), Need(2, 1, 5, 0, 1, 1, 2)),
}
CHANNELS = {
    # the sum, x - mean, the sum of its squares, times rstd w plus b
    "channels_forward_kernel": Need(1, 1, 4, 2, numbers=2),
    # xhat, the sums of dy and dy xhat, dx in two fmas: a weight is the same for all of a channel
    "channels_backward_kernel": Need(2, 1, 5, 2, numbers=2),
    # x less a value near the mean, its sum and that of its squares; then x - mean, times rstd w plus b
    "channels_moments_kernel": Need(1, 0, 3, 2, numbers=2),
    "channels_apply_kernel": Need(1, 1, 2),
    # xhat and two sums; then xhat and dx in two fmas
    "channels_sums_kernel": Need(2, 0, 3, 2, numbers=2),
    "channels_dx_kernel": Need(2, 1, 3),
}
NEEDED = ROWS | {name: (need, need) for name, need in CHANNELS.items()}
SAME = {  # by their formula
    "rows_backward_sums_kernel": "rows_long_sums_kernel",
    "rows_backward_strip_kernel": "rows_long_backward_kernel",
    "channels_resident_forward_kernel": "channels_forward_kernel",
    "channels_resident_backward_kernel": "channels_backward_kernel",
    "channels_merge_apply_kernel": "channels_apply_kernel",
    "channels_merge_dx_kernel": "channels_dx_kernel",
}


def reduced(need: Need, threads: float, told: int) -> float:
    """A statistic's sums over its threads: one half adds what the other one has, as often as that goes.

    told: what it takes to tell other warps.
    """
    halves = 2 * math.log2(max(1.0, threads))  # a shuffle and an addition each
    return (need.sums * (halves + 1) + told if need.sums else 0) + need.numbers


def merged(values: float) -> float:
    """Partial results in float32, each added once."""
    return values * (1 + 1 / NUMBERS)


class Least(NamedTuple):
    """Instructions of a thread in each turn of its loop, and in all beside it. Then whether the warps of a block meet.

    clustered: in the barrier of a cluster; each_turn: in each turn.
    """

    turn: float
    rest: float
    together: bool = False
    clustered: bool = False
    each_turn: bool = False


def least(made: Launched, centred: bool) -> Least:
    code, work, warps = made
    loop = bool(code.loop and work.steps)
    turns = (work.steps if work.turns is None else work.turns) if loop else 1
    threads = 32 * warps
    name = code.kernel.partition("<")[0]
    name = SAME.get(name, name)
    size = work.read / work.programs / turns / threads  # bytes
    if name not in NEEDED:
        return Least(merged(size / 4) + TURN * loop, BEGIN)
    need = NEEDED[name][not centred]
    values = size / 2 / need.reads
    turn = values * (need.reads * (1 + 1 / PACK) + need.arithmetic + need.writes * (1 / 2 + 1 / PACK)) + TURN * loop
    # rows that a thread has at once may have its columns in common
    columns = max(min(PACK, values), values / max(1.0, work.statistics)) / NUMBERS
    clustered = need.sums > 0 and work.cluster > 1
    together = need.sums > 0 and threads / work.statistics > 32
    told = MET if clustered else TOLD * together
    beside = reduced(need, threads * work.cluster / work.statistics, told)
    before = merged(work.before / 4 / threads)
    if need.lines:
        kept = (need.columns + need.lines) * columns
        return Least(turn + beside + before / turns, BEGIN + kept, together, clustered, loop)
    return Least(turn + need.columns * columns, BEGIN + beside + before, together, clustered)


def floor(made: Launched, centred: bool) -> Launched:
    """The launch with no more code than its formula needs."""
    code, work, _ = made
    turn, rest, together, clustered, each_turn = least(made, centred)
    waits = [int(here and each_turn == inside) for here in (together and not clustered, clustered) for inside in (0, 1)]
    names = "barriers", "loop_barriers", "meetings", "loop_meetings"
    counts = {"instructions": turn + rest, "loop": turn if code.loop and work.steps else 0}
    return made._replace(
        code=code._replace(**counts, **dict(zip(names, waits, strict=True)), first_load=0.0, prefetches=EARLY)
    )
