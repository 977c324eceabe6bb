"""Who imports whom in the package: only downward, and nothing heavy before it is needed."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import normkernels

PACKAGE = Path(normkernels.__file__).parent
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("absent", ["triton", "normkernels._C", "rich"])
def test_import_without(absent):
    """The package imports and the reference runs without any of these."""
    code = (
        f"import sys, warnings; sys.modules[{absent!r}] = None; warnings.simplefilter('ignore')\n"
        "import torch, normkernels as nk\n"
        "nk.LayerNorm(3)(torch.ones(2, 3)); nk.backends('cpu')\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "NORMKERNELS_BACKEND"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd=ROOT)


def test_import_is_light():
    """Neither triton nor the extension is loaded before a call needs it."""
    code = "import sys, normkernels; sys.exit(str([m for m in ('normkernels._C', 'triton') if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "", done.stderr


# Who may import whom: a file imports from the levels below its own, or from its own without a circle.
LEVELS = (
    (
        "_activations",
        "_arguments",
        "_checks",
        "_elementwise",
        "_exported",
        "_messages",
        "_place",
        "_tables",
        "_version",
        "update_bn",
    ),
    ("canonical", "moments"),
    ("_backends.reference", "_backends.triton"),
    ("_backends",),  # finds the two by file name, when an op first runs
    ("_record", "_replays"),
    ("_library",),
    ("ops",),
    ("functional", "modules"),
    ("_chains", "_folding", "data_norm", "fold", "parametrizations"),
    ("conversion",),
    ("hub",),
    ("distributed",),
    ("",),  # the package itself
    ("cases",),
    ("tolerance",),
    ("__main__", "info", "results", "validate"),
)


def level(module: str) -> int:
    """Of the longest prefix that LEVELS names: _backends.reference._rows is _backends.reference, not _backends."""
    parts = module.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next(i for prefix in prefixes for i, names in enumerate(LEVELS) if prefix in names)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, modules: set[str]) -> set[str]:
    """The modules of the package that a file imports, anywhere in it; ``from a import b`` is a.b where that is one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    inside = {f"{name}.".removeprefix("normkernels.")[:-1] for name in found if f"{name}.".startswith("normkernels.")}
    return {name if name in modules else name.rpartition(".")[0] for name in inside - {"_C"}}  # that is no file


def test_imports_go_down():
    """The layers lie on each other, and no two files import each other, through whatever others."""
    paths = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    arrows = {name: imports(path, set(paths)) for name, path in paths.items()}
    assert arrows["ops.rms_norm"] >= {"_library", "ops._rows"}, "imports are not found"
    upward = [(a, b) for a, found in arrows.items() for b in sorted(found) if level(b) > level(a)]
    assert not upward
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle
