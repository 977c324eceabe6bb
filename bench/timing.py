"""Timers. Providers take turns, round after round, so that a drift of the machine falls on all of them alike."""

import gc
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

FLUSH = 1 << 30  # bytes: empties any L2, and keeps the device busy while the host launches what is timed
SHORT = 50.0  # us: below it the gaps between launches show, and a CUDA graph is timed instead

Calls = dict[str, list[Callable]]  # of every provider, the same call on several sets of inputs


class Timing(NamedTuple):
    """Microseconds of one call: on the device for CUDA, on the wall clock for the CPU."""

    us: float
    p20: float
    p80: float
    host_us: float  # until the call returned
    timer: str  # "clock", "events" or "graph"


def measure(calls: Calls, device: str, seconds: float) -> dict[str, Timing]:
    """Median times of each provider; about ``seconds`` are spent on each."""
    if not calls:
        return {}
    alive = deque(maxlen=max(map(len, calls.values())))  # results stay alive as in training, so no output is in cache
    for sets in calls.values():  # every page is touched, every kernel loaded
        alive.extend(call() for call in sets)
    gc.collect()
    gc.disable()
    try:
        return _cuda(calls, seconds * len(calls)) if device == "cuda" else _clock(calls, alive, seconds * len(calls))
    finally:
        gc.enable()


def own_stream(device: str):
    """On CUDA a stream of our own: the default one cannot be captured in a graph."""
    return torch.cuda.stream(torch.cuda.Stream() if device == "cuda" else None)


def cache_bytes(device: str) -> int:
    """The size of the last-level cache: inputs rotate over several times as much."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).L2_cache_size
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = [p.read_text().strip() for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max([int(s[:-1]) * units[s[-1]] for s in sizes if s[-1:] in units], default=32 << 20)


def _turns(calls: Calls, seconds: float, least: int = 6, most: int = 400) -> Iterator[tuple[str, Callable]]:
    """(provider, call) until the time is spent; nobody always follows the same one, or keeps one set of inputs."""
    names, sets, end = list(calls), count(), time.perf_counter() + seconds
    for i in range(most):
        if i >= least and time.perf_counter() > end:
            return
        for name in names[i % len(names) :] + names[: i % len(names)]:
            yield name, calls[name][next(sets) % len(calls[name])]


def _summary(us: list[float], host_us: list[float], timer: str) -> Timing:
    warm = len(us) // 4  # the first turns still warm up
    cuts = statistics.quantiles(us[warm:], n=10)
    return Timing(cuts[4], cuts[1], cuts[7], statistics.median(host_us[warm:]), timer)


def _clock(calls: Calls, alive: deque, seconds: float) -> dict[str, Timing]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in _turns(calls, seconds):
        start = time.perf_counter_ns()
        result = call()
        times[name].append((time.perf_counter_ns() - start) / 1e3)
        alive.append(result)
        del result
    return {name: _summary(t, t, "clock") for name, t in times.items()}


def _cuda(calls: Calls, seconds: float) -> dict[str, Timing]:
    timings = _events(calls, seconds, "events")
    if min(t.us for t in timings.values()) >= SHORT:
        return timings
    graphs = {name: [g.replay] for name, sets in calls.items() if (g := _graph(sets))}
    for name, t in _events(graphs, seconds, "graph").items():
        us = [v / len(calls[name]) for v in t[:3]]
        timings[name] = Timing(*us, timings[name].host_us, "graph")
    return timings


def _events(calls: Calls, seconds: float, timer: str) -> dict[str, Timing]:
    flush = torch.empty(FLUSH, dtype=torch.uint8, device="cuda")
    pairs: dict[str, list] = {name: [] for name in calls}
    host: dict[str, list[float]] = {name: [] for name in calls}
    alive = deque(maxlen=2)
    for name, call in _turns(calls, seconds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()
        start.record()
        before = time.perf_counter_ns()
        alive.append(call())
        host[name].append((time.perf_counter_ns() - before) / 1e3)
        end.record()
        end.synchronize()
        pairs[name].append(start.elapsed_time(end) * 1e3)
    return {name: _summary(us, host[name], timer) for name, us in pairs.items()}


def _graph(sets: list[Callable]) -> torch.cuda.CUDAGraph | None:
    """All sets of inputs in one graph, or None for a call that cannot be captured: it keeps its event times."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            results = [call() for call in sets]  # all alive until the end, so that each has its own memory
            del results
    except RuntimeError:
        return None
    return graph
