"""The extension stands on the stable ABI of torch 2.11 alone, and on glibc 2.28: one build serves every later one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import normkernels

FOLDER = Path(normkernels.__file__).parent
BUILT = sorted(FOLDER.glob("_C*.so"))
BINARIES = sorted(FOLDER.glob("_*.so"))  # the replays too
STABLE = ("aoti_torch_", "torch_", "aoti_record_")  # plain C functions

needs_nm = pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")


def undefined(binary: Path) -> list[str]:
    """Symbols that others give, with their versions."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", binary], capture_output=True, text=True, check=True)
    return [line.split()[-1] for line in listed.stdout.splitlines()]


@pytest.mark.skipif(not BUILT, reason="the extension normkernels._C is not built")
@needs_nm
def test_no_cxx_symbol_of_torch():
    """No undefined symbol is a mangled C++ name of torch, ATen or c10; what torch gives are C functions."""
    symbols = [symbol.split("@")[0] for symbol in undefined(BUILT[0])]
    of_torch = [s for s in symbols if any(word in s for word in ("torch", "c10", "at6Tensor", "caffe2"))]
    assert of_torch, "nothing of torch is used: not the extension?"
    assert not [s for s in of_torch if not s.startswith(STABLE)]


@needs_nm
@pytest.mark.parametrize("binary", BINARIES, ids=lambda p: p.name.partition(".")[0])
def test_no_young_glibc(binary):
    """2.28 is enough (csrc/cpu/base/glibc.h), whichever one the binary was built on."""
    symbols = [(symbol, re.search(r"@+GLIBC_2\.(\d+)", symbol)) for symbol in undefined(binary)]
    versions = {symbol: int(found[1]) for symbol, found in symbols if found}
    assert versions
    assert not {symbol for symbol, minor in versions.items() if minor > 28}
