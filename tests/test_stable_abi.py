"""The extension stands on torch's stable ABI alone, so one build serves torch 2.11 and every later one."""

import shutil
import subprocess
from pathlib import Path

import pytest

import normkernels

BUILT = sorted(Path(normkernels.__file__).parent.glob("_C*.so"))
STABLE = ("aoti_torch_", "torch_", "aoti_record_")  # plain C functions


@pytest.mark.skipif(not BUILT, reason="the extension normkernels._C is not built")
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
def test_no_cxx_symbol_of_torch():
    """No undefined symbol is a mangled C++ name of torch, ATen or c10; what torch gives are C functions."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", BUILT[0]], capture_output=True, text=True, check=True)
    symbols = [line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()]
    of_torch = [s for s in symbols if any(word in s for word in ("torch", "c10", "at6Tensor", "caffe2"))]
    assert of_torch, "nothing of torch is used: not the extension?"
    assert not [s for s in of_torch if not s.startswith(STABLE)]
