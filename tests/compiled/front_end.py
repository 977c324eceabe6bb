"""Pass every Triton launch through the front end of the Triton that is installed, which refuses what it cannot express.

Nothing is compiled, so one version takes a minute where all the machine code takes ten; but for programs of several
blocks, which are in no table of machine code: there a spill is refused too. ``versions.py`` runs this on the oldest and
the newest Triton that are supported.
"""

import argparse
import hashlib
import importlib.util
import inspect
import json
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[0] = str(FOLDER.parents[1])  # in place of this folder, where `import triton` would find a file of ours

from triton import __version__  # noqa: E402
from triton._C.libtriton import ir  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler.compiler import make_backend  # noqa: E402

ARCH = 90


def table():
    """``tests/compiled/triton.py``, which knows every launch."""
    if "compiled_launches" not in sys.modules:
        spec = importlib.util.spec_from_file_location("compiled_launches", FOLDER / "triton.py")
        sys.modules["compiled_launches"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["compiled_launches"])
    return sys.modules["compiled_launches"]


def refused(launch) -> str | None:
    """What the front end says against a launch."""
    if launch.num_ctas > 1:
        return spilt(launch)
    target = GPUTarget("cuda", ARCH, 32)
    backend, context = make_backend(target), ir.context()
    source = table().source(launch)
    options = backend.parse_options(launch.options)
    ir.load_dialects(context)
    backend.load_dialects(context)
    try:
        source.make_ir(target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context)
    except Exception as error:
        return cause(error)
    return None


def spilt(launch) -> str | None:
    """What is to be said against the machine code of a launch."""
    try:
        row = table().compile_one(launch, ARCH)
    except Exception as error:
        return cause(error)
    return None if row["spills"] == "0" else f"{row['config']} spills {row['spills']} bytes"


def cause(error: BaseException) -> str:
    """The last line of the first error of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def launches(kernels: list[str] | None, version: str = __version__) -> list:
    """Of these kernels, or all, by that version of Triton."""
    return [launch for launch in table().launches(ARCH, version) if kernels is None or launch.kernel in kernels]


def share(first: int, of: int, kernels: list[str] | None) -> list[tuple[str, str]]:
    """(kernel, complaint) of every so many-th launch."""
    return [(launch.kernel, why) for launch in launches(kernels)[first::of] if (why := refused(launch))]


def digests(version: str) -> dict[str, str]:
    """Of each kernel: of its code and its launches, of that version of Triton, and of what passes them to it."""
    script = Path(__file__).read_text() + inspect.getsource(table().source)
    found = {}
    for launch in launches(None, version):
        found.setdefault(launch.kernel, [script]).append(launch.digest(ARCH, version))
    return {kernel: hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16] for kernel, parts in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--kernels", nargs="+", help="these alone (default: all)")
    parser.add_argument("--digests", nargs="+", metavar="VERSION", help="as JSON, by version and kernel; no more")
    args = parser.parse_args()
    if args.digests:
        sys.stdout.write(json.dumps({version: digests(version) for version in args.digests}))
        return 0
    with ProcessPoolExecutor(args.jobs) as pool:
        parts = pool.map(share, range(args.jobs), [args.jobs] * args.jobs, [args.kernels] * args.jobs)
        found = [bad for part in parts for bad in part]
    for (kernel, why), count in Counter(found).most_common():
        sys.stdout.write(f"{kernel}: {count} launches refused: {why}\n")
    sys.stdout.write(f"Triton {__version__}: {len(found)} of {len(launches(args.kernels))} launches refused\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
