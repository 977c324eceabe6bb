"""Native loops for smaller vectors than this machine may have, which ATEN_CPU_CAPABILITY asks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENDS = "every_end and (bfloat16 or float16)"


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("test_small_planes.py", ENDS), ("test_narrow_rows.py", ENDS), ("test_short_filters.py", "past_the_caches")],
)
def test_with_avx2(name, chosen):
    """Tests of a file, in a process whose vectors are of AVX2."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", Path(__file__).with_name(name)]
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([*command, "-k", chosen], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
