"""What a wheel holds beside the package, and what an index shows of it."""

import email
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("setup.py", "setup_checks.py", "setup_wheel.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE",
         "normkernels/__init__.py", "normkernels/_version.py", "normkernels/py.typed")  # fmt: skip
ADDRESS = "https://example.org/normkernels"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """As much of the source as a build without native kernels looks at."""
    folder = tmp_path_factory.mktemp("source")
    for name in (*FILES, *(f"bench/{p.name}" for p in (ROOT / "bench").glob("*.py"))):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def built(tree: Path, what: str, out: Path, **variables: str) -> Path:
    code = f"import sys; from setuptools import build_meta; build_meta.build_{what}(sys.argv[1])"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NORMKERNELS", "PYTHONPATH"))}
    environment = clean | {"NORMKERNELS_NATIVE": "0", "SOURCE_DATE_EPOCH": "1700000000"} | variables
    done = subprocess.run([sys.executable, "-c", code, out], cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("*.whl")
    return found


def of_the_build(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        return email.message_from_bytes(next(file.read(n) for n in file.namelist() if n.endswith("/METADATA")))


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    return built(tree, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_benchmark_is_in_it(wheel):
    """All that python -m normkernels bench imports."""
    with zipfile.ZipFile(wheel) as file:
        inside = {n.removeprefix("normkernels/_bench/") for n in file.namelist() if "/_bench/" in n}
        texts = [file.read(f"normkernels/_bench/{n}").decode() for n in inside]
    assert {"__init__.py", "__main__.py", "cli.py"} <= inside
    asked = {name for text in texts for names in re.findall(r"^ *from \. import (.+)$", text, re.MULTILINE)
             for name in re.findall(r"\w+", names.partition("#")[0])}  # fmt: skip
    asked |= {name for text in texts for name in re.findall(r"^ *from \.(\w+) import", text, re.MULTILINE)}
    assert len(asked) > 10
    assert {f"{name}.py" for name in asked} <= inside
    assert not [text for text in texts if re.search(r"^ *(from|import) bench\b", text, re.MULTILINE)]


def test_its_bill(wheel):
    """CycloneDX, at the place of PEP 770: what must be there at run time, and what built it."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = [n for n in file.namelist() if "/sboms/" in n]
        bill = json.loads(file.read(name))
    assert re.fullmatch(r"normkernels-[\w.]+\.dist-info/sboms/normkernels\.cdx\.json", name)
    assert bill["bomFormat"] == "CycloneDX"
    assert {part["name"] for part in bill["components"]} == {"torch", "rich"}
    assert "setuptools" in {tool["name"] for tool in bill["metadata"]["tools"]["components"]}
    assert bill["metadata"]["component"]["version"] == metadata(wheel)["Version"]
    known = {part["bom-ref"] for part in bill["components"]}
    assert set(bill["dependencies"][0]["dependsOn"]) == known


def test_the_bill_of_a_native_build(monkeypatch):
    """Torch's headers are compiled in, so the version that was there is named; no two parts have one name."""
    module = of_the_build("setup_wheel")
    monkeypatch.setattr(module, "compiler", lambda: "g++ 99")
    bill = module.bill("normkernels", "1.0", True, ["torch>=2.11", "rich"])
    torch = [part for part in bill["components"] if part["name"] == "torch"]
    assert {part.get("version") for part in torch} == {None, module.metadata.version("torch")}
    assert "g++ 99" in {tool["version"] for tool in bill["metadata"]["tools"]["components"]}
    references = [part["bom-ref"] for part in bill["components"]]
    assert len(references) == len(set(references))


def test_a_wheel_with_cuda_kernels_has_a_name_of_its_own(monkeypatch):
    import torch

    checks = of_the_build("setup_checks")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(checks, "cuda", lambda: checks.Cuda(["80"]))
    assert checks.variant() == "+cu13"
    monkeypatch.setattr(checks, "cuda", lambda: checks.Cuda([], "no nvcc"))
    assert checks.variant() == ""
    parts = of_the_build("setup_wheel").parts
    assert parts("+cu13")["version"] == parts("")["version"] + "+cu13"


def test_the_same_source_gives_the_same_wheel(tree, wheel, tmp_path):
    assert built(tree, "wheel", tmp_path).read_bytes() == wheel.read_bytes()


def test_an_editable_install_is_a_path(tree, tmp_path):
    """Which type checkers follow; they do not run a finder."""
    with zipfile.ZipFile(built(tree, "editable", tmp_path)) as file:
        paths = [n for n in file.namelist() if "/" not in n]
        assert [n.endswith(".pth") for n in paths] == [True]
        assert file.read(paths[0]).decode().strip() == str(tree)


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def test_links_without_an_address(wheel):
    """None that would lead nowhere."""
    shown = metadata(wheel)
    text = shown.get_payload()
    assert "docs/performance.md" in text
    assert [link for link in links(text) if not link.startswith("https://")] == []
    assert shown.get_all("Project-URL") is None


def test_links_with_an_address(tree, tmp_path):
    """Each leads to a file of the tag of this version."""
    shown = metadata(built(tree, "wheel", tmp_path, NORMKERNELS_ADDRESS=f"{ADDRESS}/"))
    tag, found = f"v{shown['Version']}", links(shown.get_payload())
    assert len(found) == len(links((ROOT / "README.md").read_text())) > 10
    for link in found:
        path = re.fullmatch(rf"{ADDRESS}/(?:blob|raw)/{re.escape(tag)}/([^#]+)(?:#.*)?", link)
        assert path, link
        assert (ROOT / path[1]).is_file(), link
    assert f"Source, {ADDRESS}" in shown.get_all("Project-URL")
