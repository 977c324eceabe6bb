"""A Triton driver without a GPU: kernels are compiled for an H100, and their launches noted instead of made.

Tensors are those of the CPU. What is left is the host's part of a call, which can so be timed, and looked at.
"""

import contextlib
import importlib
from typing import Any

import torch

from normkernels import _backends

MULTIPROCESSORS = 132
noted: list[tuple] | None = None  # (grid, arguments) of each launch, if a list is put here


class _Launcher:
    def __init__(self, src, metadata) -> None:
        pass

    def __call__(
        self, grid_0, grid_1, grid_2, stream, function, metadata, launch_metadata, enter, leave, *args
    ) -> None:
        if noted is not None:
            noted.append(((grid_0, grid_1, grid_2), args))


class _Utils:
    def load_binary(self, *_) -> tuple:
        return 0, 0, 32, 0, 1024

    def get_device_properties(self, _) -> dict[str, int]:
        return {
            "max_shared_mem": 232448, "multiprocessor_count": MULTIPROCESSORS, "warpSize": 32, "max_num_regs": 65536,
        }  # fmt: skip

    def unload_module(self, *_) -> None:
        pass


class _Driver:
    launcher_cls, utils = _Launcher, _Utils()

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _=0) -> int:
        return 0

    def set_current_device(self, _) -> None:
        pass

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, name: str) -> str:
        return name


def install() -> None:
    """From now on in this process; backend "triton" then takes tensors of the CPU."""
    from triton.runtime import driver

    driver.set_active(_Driver())
    cuda: Any = torch.cuda
    cuda.device_of = lambda _: contextlib.nullcontext()
    launch: Any = importlib.import_module("normkernels._backends.triton.base.launch")
    launch.multiprocessors = lambda _: MULTIPROCESSORS
    _backends._triton_unusable = lambda _: None
    _backends.resolve.cache_clear()
