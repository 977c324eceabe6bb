"""Native loops for smaller vectors than this machine may have, which ATEN_CPU_CAPABILITY asks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BITS = """
import torch, normkernels.functional as F
x = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0))
print(F.layer_norm(x, (1000,), backend="native").double().view(torch.int64).sum().item())
"""
ENDS = "every_end and (bfloat16 or float16)"


def run(*arguments, capability):
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability()[:3] != "AVX", reason="one set of vectors")
def test_each_adds_up_in_its_own_order():
    """Which tells that the variable is followed: bits differ where vectors have other widths."""
    said = torch.backends.cpu.get_cpu_capability().lower()
    found = [run("-c", BITS, capability=capability).stdout for capability in {"default", "avx2", said}]
    assert all(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("test_small_planes.py", ENDS), ("test_narrow_rows.py", ENDS), ("test_short_filters.py", "past_the_caches")],
)
def test_with_avx2(name, chosen):
    """Tests of a file, in a process whose vectors are of AVX2."""
    path = Path(__file__).with_name(name)
    done = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", path, "-k", chosen, capability="avx2")
    assert done.returncode == 0, done.stdout[-4000:]
