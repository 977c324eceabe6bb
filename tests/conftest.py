"""Set before anything is imported: interpreted Triton where there is no GPU, and unwritten memory that reads as NaN."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import interpreter
import pytest
from hypothesis import settings

interpreter.speed_up()

# torch.empty then returns NaN, so that a buffer that a kernel forgot shows
torch.use_deterministic_algorithms(True, warn_only=True)

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; test_properties sets its own number of threads
    torch.set_num_threads(1)

settings.register_profile("normkernels", derandomize=True, database=None, deadline=None, max_examples=8)
settings.load_profile("normkernels")


@pytest.fixture
def seeded():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
