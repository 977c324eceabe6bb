"""Backend "native" on CPU tensors: its CUDA kernels, launched by their own host code, are run as PTX of an H100."""

import contextlib
import ctypes
import functools
import importlib
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .build import build
from .grid import run
from .host import Host
from .launch import Edit, Launched
from .memory import PTXError
from .parser import Kernel, parse

UNWRITTEN = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"}
LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint * 3),
    ctypes.POINTER(ctypes.c_uint * 3),
    ctypes.POINTER(ctypes.c_uint * 3),
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_void_p),
)
FILLED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
LAUNCH_FAILED = 719


class Device(NamedTuple):
    """What host code is told."""

    multiprocessors: int
    blocks: int  # of any kernel, that a multiprocessor holds
    l2_bytes: int
    capability: int = 9  # clusters are launched from 9 on
    beside: int = 8  # blocks of any kernel that clusters have room for in all; of none asking is an error


SMALL = Device(2, 1, 2**16)  # so that small samples loop, and come in waves, as large ones do


class Tensors(TorchDispatchMode):
    """Which tensors nobody wrote yet, and those that a call makes."""

    def __init__(self) -> None:
        super().__init__()
        self.unwritten: set[int] = set()
        self.memory: Host | None = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for t in found if isinstance(found, tuple | list) else (found,):
            if not isinstance(t, torch.Tensor):
                continue
            at, empty = t.untyped_storage().data_ptr(), function.overloadpacket.__name__ in UNWRITTEN
            given = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, torch.Tensor)]
            view = any(a.untyped_storage().data_ptr() == at for a in given)
            if empty:
                self.unwritten.add(at)
            elif function._schema.is_mutable or not view:
                self.unwritten.discard(at)
            if self.memory is not None and not view:
                self.memory.own(t, not empty)
            elif self.memory is not None and function._schema.is_mutable:
                self.memory.wrote(t)
        return found


class Runner:
    """Calls of an op of the extension, and the launches that each makes."""

    def __init__(self, texts: dict[str, str], order: random.Random | None, edit: Edit) -> None:
        self.texts, self.order, self.edit, self.tensors = texts, order, edit, Tensors()
        self.launched: list[Launched] = []
        self.kernels: dict[str, Kernel] = {}
        self.error: Exception | None = None

    def call(self, op: Callable, name: str, *args) -> None:
        memory = self.tensors.memory = Host()
        for t in args:
            if isinstance(t, torch.Tensor):
                memory.own(t, t.untyped_storage().data_ptr() not in self.tensors.unwritten)
        try:
            with self.tensors:  # it is off while an op of torch.library runs
                op(*args)
        except RuntimeError:
            if self.error is None:
                raise
        finally:
            self.tensors.memory, error, self.error = None, self.error, None
            self.tensors.unwritten -= memory.tensors.keys()  # workspaces are freed, and their place taken by others
        if error is not None:
            raise error
        for t in args:
            if isinstance(t, torch.Tensor) and t.numel():
                if not memory.tensors[t.untyped_storage().data_ptr()].written.all():
                    raise PTXError(f"{name} leaves bytes of a result that nobody wrote")

    def kernel(self, name: str) -> Kernel:
        if name not in self.kernels:
            self.kernels[name] = parse(self.edit(self.texts[name]))
        return self.kernels[name]

    def launch(self, name, grid, block, cluster, shared, arguments) -> int:
        """What the runtime calls; an error waits for the op to return."""
        try:
            kernel, memory = self.kernel(name.decode()), self.tensors.memory
            assert memory is not None, "a launch outside a call"
            constants = bytearray()
            for k, (offset, size) in enumerate(kernel.parameters.values()):
                constants = constants.ljust(offset, b"\0") + ctypes.string_at(arguments[k], size)
            sizes = tuple(grid[0]), tuple(block[0])
            run(kernel, memory, bytes(constants), *sizes, shared, self.order, tuple(cluster[0]))
            self.launched.append(Launched(kernel.name, memory.traffic(), tuple(cluster[0])))
        except Exception as error:
            self.error = self.error or error
            return LAUNCH_FAILED
        return 0

    def filled(self, data, size) -> None:
        if self.tensors.memory is not None:
            self.tensors.memory.fill(data, size)


@functools.cache
def _library(stems: tuple[str, ...]) -> tuple[ctypes.CDLL, dict[str, str]]:
    path, texts = build(stems)
    return ctypes.CDLL(str(path)), texts


@contextlib.contextmanager
def running(
    stems: tuple[str, ...], order: random.Random | None = None, edit: Edit = str, device: Device = SMALL
) -> Iterator[list[Launched]]:
    """Backend "native" runs the CUDA kernels of these ops here. Their library registers them, so one set a process."""
    importlib.import_module("normkernels._C")  # which defines the ops
    library, texts = _library(stems)
    runner = Runner(texts, order, edit)
    launch, filled = LAUNCH(runner.launch), FILLED(runner.filled)
    library.fake_device(*device, launch, filled)
    backends: Any = importlib.import_module("normkernels._backends")
    replays: Any = importlib.import_module("normkernels._replays")
    load, replay = backends._load, replays.replay

    def loaded(name: str, op: str, place: str):
        found = functools.partial(backends.native(op).redispatch, torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA))
        return functools.partial(runner.call, found, op) if name == "native" else load(name, op, place)

    backends._load, replays.replay = loaded, lambda *_: None  # a replay would call the CPU's kernels
    backends.resolve.cache_clear()
    try:
        with runner.tensors:
            yield runner.launched
    finally:
        backends._load, replays.replay = load, replay
        backends.resolve.cache_clear()
