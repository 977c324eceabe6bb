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
SHAPES = {
    "cpu": {2: ["16384x1024", "4096x4096", "1024x16384"], 4: ["8x96x56x56", "8x96x56x56:nhwc"]},
    "cuda": {
        2: ["16384x4096", "8192x8192", "4096x16384", "1024x12288", "8192x5120", "4096x6144", "2048x4096", "131072x128",
            "4096x2048", "16384x128", "32768x256", "32768x1024", "32768x16384", "4096x65536", "1024x262144"],
        4: ["64x96x56x56", "64x96x56x56:nhwc", "64x384x14x14", "64x384x14x14:nhwc"],
    },
}  # fmt: skip
QUICK = {"cpu": {2: ["16384x1024"], 4: ["8x96x56x56"]}, "cuda": {2: ["16384x4096"], 4: ["64x96x56x56"]}}


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = p.add_argument
    add("op", nargs="*", help="layer_norm, rms_norm+residual, layer_norm+silu; default: every op, two with extras")
    add("--mode", nargs="+", choices=["fwd", "bwd"], default=["fwd", "bwd"])
    add("--dtype", nargs="+", choices=DTYPES, default=["float32", "bfloat16"], help="of x; parameters stay float32")
    add("--backend", nargs="+", choices=PROVIDERS, metavar="NAME", help=f"{' '.join(PROVIDERS)}; default: all that run")
    add("--shape", nargs="+", help="16384x1024 for row norms, 8x96x56x56 or 8x96x56x56:nhwc for image norms")
    add("--threads", nargs="+", type=int, default=[1], help="of the CPU")
    add("--device", choices=["cpu", "cuda"], help="default: cuda if there is one")
    add("--seconds", type=float, help="of timing for each provider and row")
    add("--limit", type=float, default=float("inf"), help="start no new shape after this many seconds")
    add("--quick", action="store_true", help="one shape, without torch.compile: some seconds")
    add("--base", metavar="REF", help="time a git commit as well, and add a column")
    add("--csv", type=Path, metavar="FILE")
    add("--json", type=Path, metavar="FILE")
    add("--plot", type=Path, metavar="DIR")
    return p.parse_args()


def keep_memory_mapped() -> None:
    if sys.platform == "linux" and not MALLOC.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]], {**os.environ, **MALLOC})


def main() -> int:
    args = arguments()
    keep_memory_mapped()
    deadline = time.monotonic() + args.limit
    import torch
    import torch._functorch.config as functorch

    from bench import cli

    functorch.donated_buffer = False  # a compiled backward that frees its buffers cannot be run twice
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return cli.main(args, device, QUICK[device] if args.quick else SHAPES[device], deadline)


if __name__ == "__main__":
    sys.exit(main())
