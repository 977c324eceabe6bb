"""Samples of the case tables through the PTX of an H100, against their derived tolerance, within a budget of time.

``triton`` is what Triton compiles; ``native`` the CUDA kernels, which nvcc compiles first where build/ptx has not kept
them. Without nvcc it says so and succeeds.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from normkernels.cases import OPS, Op
from normkernels.tolerance import check

from . import build, cuda, launch

LARGEST = 2**17  # elements of a sample; its lanes are numpy's
DTYPES = (torch.float32, torch.bfloat16)
Running = tuple[str, Callable[[], AbstractContextManager[list]]]  # a backend, and what runs it


def row(op: Op, dtype: torch.dtype, running: Running, until: float, most: int | None) -> tuple[str, bool]:
    """A line of the table, and whether every sample was within its tolerance."""
    samples = [s for s in op.samples if not s.big and sum(t.numel() for t in s.present().values()) <= LARGEST]
    if most is not None:  # spread over the table, others in each dtype
        step = max(1, len(samples) // most)
        samples = samples[step // 2 * (dtype == torch.bfloat16) :: step][:most]
    worst, ran, bad = 0.0, 0, []
    backend, runs = running
    with runs() as launched:
        for sample in samples:
            if time.monotonic() > until and ran:
                break
            try:
                report = max(check(op, sample, backend, dtype), key=lambda r: r.worst)
            except Exception as error:
                bad.append(f"{sample.id}: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            ran, worst = ran + 1, max(worst, report.worst)
            bad += [f"{sample.id}: {report}"] if report.worst > 1 else []
    name, moved = str(dtype).removeprefix("torch."), sum(t.total for one in launched for t in one.traffic.values())
    text = f"{op.stem:24}{name:10}{ran:4d} of {len(samples):4d}{worst:8.2f}{len(launched):10d}{moved:14d}"
    return "\n".join([text, *(f"    {line}" for line in bad)]), not bad and bool(ran)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ptx", description=__doc__)
    parser.add_argument("ops", nargs="*", help="these alone (default: all)")
    parser.add_argument("--backend", choices=["triton", "native"], default="triton", help="default: %(default)s")
    parser.add_argument("--arch", type=int, choices=[80, 90, 100], default=90, help="for Triton (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=100, help="budget, shared evenly (default: %(default)s)")
    parser.add_argument("--order", choices=["lockstep", "random"], default="lockstep", help="of the warps of a block")
    parser.add_argument("--samples", type=int, help="at most so many of an op and dtype")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="this alone (default: both)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    order = random.Random(1) if args.order == "random" else None
    dtypes = [getattr(torch, args.dtype)] if args.dtype else DTYPES
    cases = [(OPS[stem], dtype) for stem in args.ops or OPS for dtype in dtypes]
    sys.stdout.write(f"{'op':24}{'dtype':10}{'samples':>12}{'worst':>8}{'launches':>10}{'bytes moved':>14}\n")
    if args.backend == "native":
        if build.nvcc() is None:
            sys.stdout.write("nvcc not found: the CUDA kernels were not run\n")
            return 0
    stems = tuple(args.ops or OPS)
    runs = {"triton": lambda: launch.running(order, arch=args.arch), "native": lambda: cuda.running(stems, order)}
    running = args.backend, runs[args.backend]
    failed, start = False, time.monotonic()
    for i, (op, dtype) in enumerate(cases, 1):
        text, good = row(op, dtype, running, start + args.seconds * i / len(cases), args.samples)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        failed |= not good
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
