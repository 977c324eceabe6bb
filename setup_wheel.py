"""What a wheel holds beside the package: the benchmark, a README for an index, and a bill of what it was built from."""

import json
import os
import re
import shutil
import subprocess
import uuid
from glob import glob
from importlib import metadata

from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = os.path.dirname(os.path.abspath(__file__))
ADDRESS = os.environ.get("NORMKERNELS_ADDRESS", "").rstrip("/")  # where the source is published, if it is
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")
# of the benchmark
OF_A_CLONE = (
    "adoption.py", "adoption_steps.py", "ceilings.py", "gpu.py", "performance.py", "record.py", "step.py", "turns.py",
)  # fmt: skip
TOOLS = ("setuptools", "ninja")


def version() -> str:
    with open(os.path.join(ROOT, "normkernels/_version.py")) as file:
        return re.findall(r'__version__ = "(.+)"', file.read())[0]


def readme(address: str) -> str:
    """With links that hold away from the source: to the tag of this version, or none where nothing is published."""
    tag = f"v{version()}"

    def replaced(found: re.Match) -> str:
        picture, words, target = found.groups()
        if address:
            return f"{picture}[{words}]({address}/{'raw' if picture else 'blob'}/{tag}/{target})"
        return "" if picture else words

    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return LINK.sub(replaced, file.read())


def urls(address: str) -> dict[str, str]:
    """What an index shows beside the README."""
    paths = {"Source": "", "Changelog": f"/blob/v{version()}/CHANGELOG.md", "Issues": "/issues"}
    return {name: address + path for name, path in paths.items()} if address else {}


class BuildWithBenchmark(build_py):
    """The folder bench lies in the package there, as normkernels._bench; in a clone it is what it is."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = os.path.join(self.build_lib, "normkernels/_bench")
            self.mkpath(target)
            for source in sorted(glob(os.path.join(ROOT, "bench/*.py"))):
                if os.path.basename(source) not in OF_A_CLONE:
                    self.copy_file(source, target)


def installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def compiler() -> str:
    """Its own first line, by whatever calls it (CXX="ccache g++")."""
    from torch.utils.cpp_extension import get_cxx_compiler

    said = subprocess.run([*get_cxx_compiler().split(), "--version"], capture_output=True, text=True).stdout
    return said.partition("\n")[0]


def package(name: str, number: str, scope: str, about: str) -> dict:
    """Of an index, as a component."""
    reference = f"pkg:pypi/{name}" + (f"@{number}" if number else "")
    found = {"type": "library", "bom-ref": reference, "name": name, "purl": reference, "scope": scope}
    return found | {"description": about} | ({"version": number} if number else {})


def bill(name: str, number: str, native: bool, requires: list[str]) -> dict:
    """CycloneDX: what is compiled into the binaries, what must be there for them to run, and what built them."""
    parts = [package(re.split(r"[^\w-]", r)[0], "", "required", f"at run time: {r}") for r in requires]
    tools = [{"type": "application", "name": tool, "version": installed(tool)} for tool in TOOLS if installed(tool)]
    if native:
        parts.append(package("torch", installed("torch"), "required", "its headers, and pybind11's among them"))
        tools.append({"type": "application", "name": "C++ compiler", "version": compiler()})
    itself = {
        "type": "library", "bom-ref": f"pkg:pypi/{name}@{number}", "name": name, "version": number,
        "purl": f"pkg:pypi/{name}@{number}", "licenses": [{"license": {"id": "Apache-2.0"}}],
    }  # fmt: skip
    found = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "tools": {"components": tools}, "component": itself},
        "components": parts,
        "dependencies": [{"ref": itself["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}],
    }  # fmt: skip
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(found))  # of the same parts the same: wheels are reproducible
    return found | {"serialNumber": f"urn:uuid:{serial}"}


class WheelWithBill(bdist_wheel):
    """PEP 770: the bill lies among the metadata."""

    def write_wheelfile(self, wheelfile_base: str, *more, **options) -> None:
        super().write_wheelfile(wheelfile_base, *more, **options)
        of, folder = self.distribution, os.path.join(wheelfile_base, "sboms")
        found = bill(of.get_name(), of.get_version(), of.has_ext_modules(), of.install_requires)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        with open(os.path.join(folder, f"{of.get_name()}.cdx.json"), "w") as file:
            json.dump(found, file, indent=1)


def parts(variant: str) -> dict:
    """What setup() is given beside the extension."""
    return {
        "version": version() + variant,
        "cmdclass": {"build_py": BuildWithBenchmark, "bdist_wheel": WheelWithBill},
        "long_description": readme(ADDRESS),
        "long_description_content_type": "text/markdown",
        "project_urls": urls(ADDRESS),
    }
