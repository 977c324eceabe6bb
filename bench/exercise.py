"""Every native kernel on small samples, forward and backward: what compute-sanitizer watches; no result is judged.

The exit status is 1 where nothing ran, so that nobody takes that for a pass.
"""

import argparse
import sys
import time

import torch

from normkernels import tolerance
from normkernels._backends import backends
from normkernels.cases import OPS

DTYPES = ((torch.float32, None), (torch.bfloat16, torch.float32), (torch.float64, None))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.exercise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=30.0, help="calls left then are counted and left out")
    args = parser.parse_args()
    usable = {op for op, reasons in backends(args.device).items() if reasons["native"] is None}
    ops = [op for op in OPS.values() if f"{op.stem}_fwd" in usable]
    samples = sorted(((op, sample) for op in ops for sample in op.samples), key=lambda pair: pair[1].big)
    calls = [(*types, op, sample) for types in DTYPES for op, sample in samples]
    end, done = time.monotonic() + args.seconds, 0
    for dtype, parameters, op, sample in calls:
        if time.monotonic() > end:
            break
        tolerance.run(op, sample.call, *tolerance.given(op, sample, dtype, parameters, args.device), "native")
        done += 1
    if args.device == "cuda":
        torch.cuda.synchronize()
    sys.stdout.write(f"{done} of {len(calls)} calls on {args.device}: {', '.join(op.stem for op in ops) or 'no op'}\n")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
