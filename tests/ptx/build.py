"""The CUDA kernels as PTX for an H100, and their host code as a library without a GPU; kept in build/ptx."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

from .parser import entries

ROOT = Path(__file__).resolve().parents[2]
CUDA, KEPT, RUNTIME = ROOT / "csrc/cuda", ROOT / "build/ptx", Path(__file__).with_name("runtime.cpp")
CHANNELS = {"batch_norm", "group_norm", "instance_norm"}  # whose kernels are in files of their own
USED = {"layer_norm_2d": ["layer_norm"], "normprop": ["batch_norm", "weight_norm"]}  # by functions of another name
LIBRARIES = ("torch_cpu", "c10")


def _script(name: str):
    """A module of ``tests/compiled``, which is a folder of scripts."""
    folder = str(ROOT / "tests/compiled")
    sys.path.insert(0, folder)
    try:
        spec = importlib.util.spec_from_file_location(f"compiled_{name}", f"{folder}/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def nvcc() -> str | None:
    return _script("cuda").find("nvcc")


def sources(stems: Sequence[str]) -> list[Path]:
    """What their ops, and those that they use, are made of."""
    every = {*stems, *(used for stem in stems for used in USED.get(stem, []))}
    channels = sorted((CUDA / "channels").glob("*.cu")) if CHANNELS & every else []
    return [*(CUDA / f"{stem}.cu" for stem in sorted(every)), *channels, ROOT / "csrc/checks/call.cpp", RUNTIME]


def build(stems: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """The library that registers the CUDA kernels of those ops, and the PTX of each kernel by name."""
    made = [_compile(source) for source in sources(stems)]
    name = hashlib.sha256(" ".join(map(str, made)).encode()).hexdigest()[:16]
    library = KEPT / f"{name}.so"
    if not library.exists():
        folder = Path(torch.__file__).parent / "lib"
        links = [f"-L{folder}", *(f"-l{library}" for library in LIBRARIES), "-Wl,-Bsymbolic"]
        _run(["g++", "-shared", "-o", str(library), *(f"{path}.o" for path in made), *links])
    texts = [Path(f"{path}.ptx") for path in made]
    return library, {name: text for path in texts if path.exists() for name, text in entries(path.read_text()).items()}


def _compile(source: Path) -> Path:
    """The object file and, of kernels, the PTX; named after what they are made of."""
    script, tool = _script("cuda"), nvcc()
    assert tool is not None, "no nvcc"
    # only the device's code is looked at, so the host's need not be fast
    flags = [*script.FLAGS, "-Xcompiler=-fPIC,-O0", "-gencode=arch=compute_90,code=compute_90"]
    digest = _script("digests").digest(source, f"{_run([tool, '--version'])} {torch.__version__} {flags}")
    target = KEPT / f"{source.stem}-{source.parent.name}-{digest}"
    if not Path(f"{target}.o").exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            includes = [f"-I{path}" for path in (ROOT / "csrc", *include_paths())]
            keep = ["--keep", f"--keep-dir={folder}"]
            _run([tool, *flags, *keep, *includes, "-c", "-o", f"{folder}/made.o", str(source)])
            if (ptx := Path(folder, f"{source.stem}.ptx")).exists():
                shutil.move(ptx, f"{target}.ptx")
            os.replace(f"{folder}/made.o", f"{target}.o")
    return target


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{re.split(r'[/ ]', command[0])[-1]} failed:\n{done.stderr}")
    return done.stdout
