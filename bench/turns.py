"""Steps of copies of a model that take turns, each at many places in memory and in the round."""

import itertools
import random
import statistics
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

Step = Callable[[], object]
LEAST, MOST = 15, 200  # rounds
WARM_UP = 4  # calls of each before them: compilation, calls that are recorded
TIMED = 3  # calls of each in a round


def called(module: nn.Module) -> Callable[..., Any]:
    """A function that calls it, with a code object of its own.

    What is compiled belongs to a function's code: of modules that share it, the last would evaluate the others' guards.
    """

    def run(*args: Any) -> Any:
        return module(*args)

    return types.FunctionType(run.__code__.replace(), run.__globals__, "run", None, run.__closure__)


def moved(modules: Sequence[nn.Module]) -> list[torch.Tensor]:
    """Puts all that they hold elsewhere in memory; what is returned lies between, and keeps it apart."""
    between = []
    for t in itertools.chain.from_iterable((*m.parameters(), *m.buffers()) for m in modules):
        between.append(torch.empty(random.randrange(1, 2000)))
        t.data = t.data.clone()
    return between


def seconds(call: Step) -> float:
    """Of the processor, for other processes spend their own: of a second call, for a first finds another's weights."""
    call()
    start = time.process_time()
    call()
    return time.process_time() - start


def taken(modules: Sequence[nn.Module], calls: Sequence[Step], budget: float) -> list[list[float]]:
    """Seconds that each call takes, round by round, until so many are spent.

    Where weights lie changes a step by several hundredths, and so does which step comes before it. So in each round
    the modules, one for each call, lie elsewhere, and the calls come in another order; a round has one median for each.
    """
    random.seed(0)
    for call in calls:
        for _ in range(WARM_UP):
            call()
    found: list[list[float]] = [[] for _ in calls]
    order, end = list(range(len(calls))), time.perf_counter() + budget
    while len(found[0]) < LEAST or (len(found[0]) < MOST and time.perf_counter() < end):
        between = moved(modules)
        random.shuffle(order)
        for i in order:
            calls[i]()
        spent = [{i: seconds(calls[i]) for i in order} for _ in range(TIMED)]
        del between
        for i in order:
            found[i].append(statistics.median(times[i] for times in spent))
    return found
