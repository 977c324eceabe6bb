"""What a built wheel is: its tag, what lies in it, that no path of the builder does, and that every native op runs.

python tests/compiled/wheel.py                                    # builds it first, for the torch that is here
python tests/compiled/wheel.py dist/normkernels-0.1.0-cp311-abi3-linux_x86_64.whl
python tests/compiled/wheel.py FILE --python 3.11/bin/python 3.13/bin/python --torch 'torch==2.11.*' torch

It runs in clean environments: each ``--python`` with each ``--torch``, and what the wheel and torch ask for.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
TAG = re.compile(r"normkernels-[\w.+]+-cp311-abi3-(manylinux_\w+|linux_\w+|macosx_\w+|win_\w+)\.whl")
NEWEST_GLIBC = (2, 28)  # of the platform tag that auditwheel gives
PATHS = [os.fsencode(p) + b"/" for p in (Path.home(), tempfile.gettempdir(), ROOT)]  # a builder's
# the bill of materials against CycloneDX's own schema
BILL = """
import sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(sys.argv[1]).read_text()) or "") or 0)
"""
# of torch and CUDA, which lie beside it; whatever else it needs every Linux of a manylinux tag must have
OF_TORCH = ("--exclude", "libtorch*.so", "--exclude", "libc10*.so", "--exclude", "libcudart.so.*")
# what is imported -> how Python looks at a wheel, or at a file of it, with that
TOOLS = {
    "twine": ("-m", "twine", "check", "--strict"), "check_wheel_contents": ("-m", "check_wheel_contents"),
    "auditwheel": ("-m", "auditwheel", "repair", *OF_TORCH),
    "abi3audit": ("-m", "abi3audit", "--strict"), "cyclonedx": ("-c", BILL),
}  # fmt: skip
SMOKE = """
import sys, torch, normkernels as nk
assert nk.__file__.startswith(sys.argv[1]), nk.__file__
table = nk.backends("cpu")
missing = {op: row["native"] for op, row in table.items() if row["native"]}
assert not missing, missing
with nk.use_backend("native"):
    for ours, theirs, shape in (
        (nk.LayerNorm(64), torch.nn.LayerNorm(64), (8, 64)), (nk.GroupNorm(4, 8), torch.nn.GroupNorm(4, 8), (2, 8, 5)),
        (nk.BatchNorm2d(8), torch.nn.BatchNorm2d(8), (4, 8, 3, 3)),
    ):
        x = torch.randn(shape)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        dy = torch.randn(shape)
        ours(a).backward(dy), theirs(b).backward(dy)
        torch.testing.assert_close(a.grad, b.grad)
from normkernels import validate
from normkernels._bench.__main__ import arguments
arguments(["layer_norm", "--quick"], "bench")
status = validate.main(["--quick", "--backend", "native", "--dtype", "float32"])
print(f"{len(table)} ops, torch {torch.__version__}, Python {sys.version.split()[0]}")
sys.exit(status)
"""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def wrong(path: Path) -> Iterator[str]:
    """What is wrong with the file itself."""
    if not TAG.fullmatch(path.name):
        yield f"the name {path.name} has no tag cp311-abi3"
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        kernels = [n for n in names if re.fullmatch(r"normkernels/_C\.(abi3\.so|pyd)", n)]
        if len(kernels) != 1:
            yield f"it has {len(kernels)} binaries of the stable ABI"
        for wanted in ("normkernels/py.typed", "normkernels/_bench/__main__.py", "/sboms/normkernels.cdx.json"):
            if not any(name.endswith(wanted) for name in names):
                yield f"it has no {wanted}"
        for name in (n for n in names if n.endswith((".so", ".pyd"))):
            found = {p.decode() for p in PATHS if p in wheel.read(name)}
            if found:
                yield f"{name} has paths of its builder: {', '.join(sorted(found))}"


def tools(path: Path) -> Iterator[str]:
    """What the tools for wheels say, where they are installed."""
    folder = tempfile.TemporaryDirectory()
    with zipfile.ZipFile(path) as wheel:  # of the two binaries the one of every Python: the replays are of one
        kernels = [wheel.extract(n, folder.name) for n in wheel.namelist() if "/_C.abi3" in n]
        bills = [wheel.extract(n, folder.name) for n in wheel.namelist() if n.endswith("/normkernels.cdx.json")]
    for tool, arguments in TOOLS.items():
        if importlib.util.find_spec(tool) is None:
            say(f"{tool} is not installed")
            continue
        given = {
            "abi3audit": kernels,
            "cyclonedx": bills,
            "auditwheel": ["-w", f"{folder.name}/audited", str(path)],
        }.get(tool, [str(path)])
        command = [sys.executable, *arguments, *given]
        done = subprocess.run(command, capture_output=True, text=True)
        text = done.stdout + done.stderr
        glibc = re.findall(r"manylinux_(\d+)_(\d+)", text)[-1:]
        young = [tag for tag in glibc if tuple(map(int, tag)) > NEWEST_GLIBC]
        tag = "".join("manylinux_{}_{}".format(*tag) for tag in glibc)
        say(f"{tool}: {'WRONG' if done.returncode or young else 'ok'} {tag}".rstrip())
        if done.returncode:
            yield f"{tool}: {text.strip()[-400:]}"
        if young:
            yield f"{tool}: it is {tag}, and runs on no Linux of glibc 2.28"


def built(folder: Path | str) -> Path:
    """By pip, from this tree, into a folder that has no other wheel."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (path,) = Path(folder).glob("*.whl")
    return path


def clean() -> dict[str, str]:
    """The environment's variables without a path to this tree, which pip would take for the package installed."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("NORMKERNELS", "PYTHON"))}


def environment(folder: str, python: str, torch: str, path: Path) -> Path:
    """Python of a new virtual environment: the wheel, a torch, and what they ask for."""
    subprocess.run([python, "-m", "venv", folder], check=True, env=clean())
    inside = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, torch, path], check=True, env=clean())
    return inside


def runs(path: Path, python: str, torch: str) -> Iterator[str]:
    """In a clean environment, from another folder than the source's."""
    with tempfile.TemporaryDirectory() as folder:
        inside = environment(folder, python, torch, path)
        done = subprocess.run([inside, "-c", SMOKE, folder], env=clean(), cwd=folder, capture_output=True, text=True)
        say(done.stdout.strip())
        if done.returncode:
            yield f"with {python} and {torch} it does not run: {done.stderr.strip()[-400:]}"


def here() -> str:
    """The torch of this environment, of which a clean one takes the same build."""
    return f"torch=={metadata.version('torch').partition('+')[0]}"


def looked_at(path: Path, arguments: argparse.Namespace) -> int:
    say(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    found = [*wrong(path), *tools(path)]
    for python, torch in product(arguments.python, arguments.torch or [here()]):
        found += runs(path, python, torch)
    for line in found:
        say(f"{path.name}: {line}")
    return min(len(found), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, nargs="?", help="default: one that is built of this tree")
    parser.add_argument("--out", type=Path, help="folder that keeps what is built")
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters; default: this one")
    parser.add_argument("--torch", nargs="+", help="as pip is asked for it; default: the version that is here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return looked_at(arguments.wheel or built(arguments.out or folder), arguments)


if __name__ == "__main__":
    sys.exit(main())
