"""Trainings one after the other: how long they will take, how far they are, and which rate is an arm's best."""

import argparse
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from _console import console
from _results import Number
from rich.progress import Progress

VALIDATION = "% right of the validation, by rate"


@dataclass(frozen=True)
class Job:
    """One training: ``start()`` makes a generator that yields after each step, and returns what it found."""

    steps: int
    start: Callable[[], Generator[None, None, Any]]


def run(jobs: Mapping[Any, Job], what: str = "runs") -> dict[Any, Any]:
    """What each job found, one after the other: says how long it will take, then shows how far it is."""
    console.print(f"{len(jobs)} {what}: about {_minutes(_estimate(jobs))}", highlight=False)
    found, began = {}, time.perf_counter()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=sum(job.steps for job in jobs.values()))
        for key, job in jobs.items():
            steps = job.start()
            while key not in found:
                try:
                    next(steps)
                    bar.advance(task)
                except StopIteration as end:
                    found[key] = end.value
    console.print(f"took {_minutes(time.perf_counter() - began)}", highlight=False)
    return found


def _estimate(jobs: Mapping[Any, Job]) -> float:
    """Seconds; of jobs whose keys differ in the last part alone (the seed, a rate) the first is tried."""
    times: dict[Any, float] = {}
    total = 0.0
    for key, job in jobs.items():
        kind = key[:-1] if isinstance(key, tuple) else key
        if kind not in times:
            times[kind] = _step_time(job)
        total += job.steps * times[kind]
    return total


def _step_time(job: Job) -> float:
    """Seconds, from five steps after the first, which warms up."""
    steps, times = job.start(), []
    for _ in range(min(6, job.steps)):
        start = time.perf_counter()
        next(steps, None)
        times.append(time.perf_counter() - start)
    return median(times[1:] or times or [0.0])


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def tuned(
    chosen: argparse.Namespace, rates: Mapping[Any, tuple[float, ...]], trial: Callable[[Any, float], Job]
) -> tuple[dict[Any, float], dict[tuple[Any, float], float]]:
    """The rate of each arm with which ``trial`` finds most of the validation right, and all that was found.

    Of equal ones the lowest. ``--rate`` takes the place of them all, and nothing is tried then.
    """
    if chosen.rate is not None:
        return {arm: float(chosen.rate) for arm in rates}, {}
    jobs = {(arm, rate): trial(arm, rate) for arm, tried in rates.items() for rate in tried}
    found = run(jobs, "runs to choose rates by, on a part of the training images")
    best = {}
    for arm, tried in rates.items():
        _, rate = max((found[arm, rate], -rate) for rate in tried)
        best[arm] = -rate
    return best, found


def validated(data: str, found: Mapping[tuple[Any, float], float]) -> list[Number]:
    """What ``tuned`` found: ``at`` is the rate, and a rate at which nothing is learnt is a number too."""
    return [Number(data, str(arm), VALIDATION, right, 0, rate) for (arm, rate), right in found.items()]
