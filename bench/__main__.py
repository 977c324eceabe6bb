"""The command line: ``python -m bench --help``."""

import argparse
import os
import sys
import time
from pathlib import Path

# Freed memory stays mapped, or the first touch of each fresh output would cost more than the kernel under test.
# glibc reads these when the process starts, so the process starts once more with them set.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 36), "MALLOC_TRIM_THRESHOLD_": str(1 << 36)}

PROVIDERS = ("triton", "native", "reference", "torch", "compile", "liger", "copy")
DTYPES = ("float64", "float32", "bfloat16", "float16")


def arguments(argv: list[str] | None, prog: str) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog=prog, description=__doc__)
    add = p.add_argument
    add("op", nargs="*", help="layer_norm, rms_norm+residual, batch_norm+skip+relu; default: all, some with extras")
    add("--mode", nargs="+", choices=["fwd", "bwd"], default=["fwd", "bwd"])
    add("--dtype", nargs="+", choices=DTYPES, default=["float32", "bfloat16"], help="of x; parameters stay float32")
    add("--backend", nargs="+", choices=PROVIDERS, metavar="NAME", help=f"{' '.join(PROVIDERS)}; default: all that run")
    add(
        "--without",
        nargs="+",
        choices=PROVIDERS,
        metavar="NAME",
        default=[],
        help="leave these out: compile takes long",
    )
    add("--shape", nargs="+", help="16384x1024, 8x96x56x56, 8x96x56x56:nhwc (channels last); each for the ops it fits")
    add("--threads", nargs="+", type=int, default=[1], help="of the CPU")
    add("--device", choices=["cpu", "cuda"], help="default: cuda if there is one")
    add("--seconds", type=float, help="of timing for each provider and row")
    add("--limit", type=float, default=float("inf"), help="start no new shape after this many seconds")
    add("--quick", action="store_true", help="one shape, without torch.compile: under a minute")
    add("--with", nargs="+", dest="own", metavar="MODULE:FUNCTION", default=[], help="race functions of your own too")
    add("--compare", nargs=2, type=Path, metavar="CSV", help="two files of --csv side by side; nothing is timed")
    add("--base", metavar="REF", help="time a git commit as well, and add a column")
    add("--csv", type=Path, metavar="FILE")
    add("--json", type=Path, metavar="FILE")
    add("--plot", type=Path, metavar="DIR")
    return p.parse_args(argv)


def keep_memory_mapped() -> None:
    if sys.platform == "linux" and not MALLOC.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **MALLOC})


def main(argv: list[str] | None = None, prog: str = "python -m bench") -> int:
    args = arguments(argv, prog)
    keep_memory_mapped()
    deadline = time.monotonic() + args.limit
    import torch._functorch.config as functorch

    from . import checks, cli, compare, tables

    if args.compare:
        return compare.main(args.compare, tables.console())
    functorch.donated_buffer = False  # a compiled backward that frees its buffers cannot be run twice
    return cli.main(args, checks.device(args.device), deadline)


if __name__ == "__main__":
    sys.exit(main())
