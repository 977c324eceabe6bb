"""The house rules that no other tool checks: one stem in every layer, allocation, masks, headers, names."""

import ast
import csv
import re
import runpy
from pathlib import Path

import mutations
import pytest

import normkernels
from bench import shapes
from normkernels import ACTIVATIONS
from normkernels.cases import OPS

PACKAGE = Path(normkernels.__file__).parent
ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
LAYERS = {
    "modules": PACKAGE / "modules/{}.py",
    "ops": PACKAGE / "ops/{}.py",
    "reference": PACKAGE / "_backends/reference/{}.py",
    "triton": PACKAGE / "_backends/triton/{}.py",
    "cpu": CSRC / "cpu/{}.cpp",
    "cuda": CSRC / "cuda/{}.cu",
    "cases": PACKAGE / "cases/{}.py",
}
GAPS: set[tuple[str, str]] = set()  # (stem, layer) that is known to be missing

BACKEND_FILES = [*(PACKAGE / "_backends").rglob("*/*.py"), *CSRC.glob("c*/**/*.*")]
TRITON_FILES = list((PACKAGE / "_backends/triton").rglob("*.py"))


def stems(layer: str) -> set[str]:
    pattern = LAYERS[layer]
    # _rows.py is a helper of a family; those of C++ and CUDA lie in its folder
    return {p.stem for p in pattern.parent.glob("*" + pattern.suffix) if not p.stem.startswith("_")}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_stem_answers_in_every_layer(layer):
    """A normaliser is one file of one name in each layer; nothing else lies there."""
    wanted = {stem for stem in OPS if (stem, layer) not in GAPS}
    missing = [str(LAYERS[layer]).format(stem) for stem in sorted(wanted - stems(layer))]
    assert not missing, f"missing: {missing}"
    assert stems(layer) <= set(OPS), f"not in the table of cases: {stems(layer) - set(OPS)}"
    assert not {stem for stem, where in GAPS if where == layer and stem in stems(layer)}, "GAPS lists what exists"


def test_families_are_folders():
    """``ls _backends/triton`` is the coverage report: stems lie on top, what they share in a folder for each family."""
    top = PACKAGE / "_backends/triton"
    assert {p.stem for p in top.glob("*.py")} == {"__init__", *OPS}
    assert all((p.parent / "__init__.py").exists() for p in top.rglob("*.py"))


def calls(tree: ast.AST, dotted: str):
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == dotted]


@pytest.mark.parametrize("path", TRITON_FILES, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_masked_loads_say_what_else(path):
    """The interpreter forgives a masked tl.load without other=; a GPU returns whatever it finds."""
    for call in calls(ast.parse(path.read_text()), "tl.load"):
        given = {k.arg for k in call.keywords}
        assert "mask" not in given or "other" in given, f"{path.name}:{call.lineno}"
        assert len(call.args) == 1, f"{path.name}:{call.lineno}: mask= and other= by name"


@pytest.mark.parametrize("path", BACKEND_FILES, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_backends_allocate_no_output(path):
    """ops/ allocates and backends fill, so that backends cannot disagree. A workspace must say that it is one."""
    allocation = (
        r"(torch::(stable::)?empty|torch::(stable::)?new_empty|aoti_torch_empty|torch\.empty|\.new_empty|_like\()"
    )
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        if re.search(allocation, line) and "reference" not in path.parts:
            assert "workspace" in "\n".join(lines[max(0, i - 5) : i + 1]), f"{path}:{i + 1}: {line.strip()}"


def jitted(path: Path) -> list[ast.FunctionDef]:
    found = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    return [f for f in found if any("triton.jit" in ast.unparse(d) for d in f.decorator_list)]


def compared_with_none(function: ast.AST) -> set[str]:
    """The names that it compares with None."""
    compares = [n for n in ast.walk(function) if isinstance(n, ast.Compare) and isinstance(n.left, ast.Name)]
    return {n.left.id for n in compares if ast.unparse(n.comparators[0]) == "None"}


def optional(function: ast.FunctionDef) -> bool:
    """Whether a helper gives a value in an ``if ... is not None`` alone, and falls off its end otherwise."""
    returns = any(isinstance(n, ast.Return) and n.value for n in ast.walk(function))
    return returns and isinstance(function.body[-1], ast.If) and not function.body[-1].orelse


OPTIONAL = {f.name for path in TRITON_FILES for f in jitted(path) if optional(f)}


@pytest.mark.parametrize("path", TRITON_FILES, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_what_may_be_none(path):
    """Triton 3.6 gives None back from an ``if`` alone, and packs none into a tuple: one such value to an assignment."""
    for function in jitted(path):
        returns = [n for n in function.body if isinstance(n, ast.Return) and isinstance(n.value, ast.Name)]
        handed = {n.value.id for n in returns} & compared_with_none(function) & {a.arg for a in function.args.args}
        assigned = {ast.unparse(n.targets[0]) for n in function.body if isinstance(n, ast.Assign)}
        assert not handed - assigned, f"{path.name}:{function.lineno}: return {handed} in its if alone"
        for packed in (n for n in ast.walk(function) if isinstance(n, ast.Tuple) and isinstance(n.ctx, ast.Load)):
            called = {ast.unparse(n.func) for n in packed.elts if isinstance(n, ast.Call)}
            assert not called & OPTIONAL, f"{path.name}:{packed.lineno}: {called & OPTIONAL} may be None"


def test_optional_helpers_are_found():
    """The rule above knows the helpers that load what may be absent."""
    assert {"load", "load_tile", "load_parameter", "load_channel", "broad", "of_sample"} <= OPTIONAL


@pytest.mark.parametrize("path", [*CSRC.glob("cuda/**/*.cuh")], ids=lambda p: f"{p.parent.name}-{p.name}")
def test_device_headers_know_no_torch(path):
    """Device code is plain CUDA, so that it compiles and is tested alone."""
    included = re.findall(r'#include\s+[<"]([^>"]+)', path.read_text())
    assert not [name for name in included if name.startswith(("torch/", "ATen/", "c10/"))]


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_base_knows_no_family(backend):
    """What every family stands on includes none of them."""
    files = [*CSRC.glob(f"{backend}/base/*.*")]
    included = {name for path in files for name in re.findall(r'#include "([^"]+)', path.read_text())}
    assert files
    assert not {name for name in included if not name.startswith((f"{backend}/base/", "checks/", "boxed.h"))}


def test_files_are_short():
    """No C++ file is longer than a reader can hold; what grows is split where its seams are."""
    files = [p for folder in (CSRC, ROOT / "tests/cpp") for p in folder.rglob("*.*") if p.is_file()]
    lengths = {p: len(p.read_text().splitlines()) for p in files}
    assert len(lengths) > 150
    assert not {str(p): n for p, n in lengths.items() if n > 220}


def test_every_triton_kernel_is_compiled():
    """The table of tests/compiled/triton.py has each: an op is compiled there once its launches are recorded."""
    with (ROOT / "docs/compiled/triton.csv").open(newline="") as file:
        compiled = {row["kernel"] for row in csv.DictReader(file)}
    written = {f.name for path in TRITON_FILES for f in jitted(path) if f.name.endswith("_kernel")}
    assert len(written) > 50
    missing, stale = written - compiled, compiled - written
    assert not missing
    assert not stale


def test_every_norm_is_timed():
    """bench/shapes.py has its shapes; what is no norm of input or of weights has a benchmark of its own."""
    stems = {stem for stem, op in OPS.items() if op.kind in ("norm", "filters")}
    assert stems == set(shapes.RANKS)
    assert all(stems <= set(table) for table in (*shapes.SHAPES.values(), *shapes.QUICK.values()))


def test_schemas_are_those_of_the_ops():
    """csrc/schemas.cpp says what the ops in Python say; tests/compiled/schemas.py --write mends it."""
    module = runpy.run_path(str(ROOT / "tests/compiled/schemas.py"))
    assert len(module["native_schemas"]()) > 30
    assert (CSRC / "schemas.cpp").read_text() == module["text"]()


def test_mutations_apply():
    """Each line that tests/mutate.py breaks is there exactly once."""
    found = mutations.load()
    stale = [(m.place, m.old) for m in found if len(m.spots(ROOT)) != 1]
    assert len(found) > 250
    assert not stale


NAMED = {
    "triton": PACKAGE / "_backends/triton/base/activations.py",
    "cpu": CSRC / "cpu/base/tiles.h",
    "cuda": CSRC / "cuda/base/activations.cuh",
}


@pytest.mark.parametrize("backend", NAMED)
def test_activation_names(backend):
    """Each backend spells out every activation of the package."""
    if not NAMED[backend].exists():
        pytest.skip(f"{NAMED[backend]} is not there")
    text = "\n".join(p.read_text() for p in {NAMED[backend], *NAMED[backend].parent.glob("*activations.*")})
    missing = [name for name in ACTIVATIONS if not re.search(rf'"{name}"|\b{name}\b', text)]
    assert not missing, f"{backend}: {missing}"
