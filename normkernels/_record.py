"""Records what a call does, as a plan that the extension ``_replay`` runs without Python.

A call is watched while it runs as it always does: the ops that it makes, the buffers and views between them, what a
recipe keeps for its backward. The same call with other values (:func:`replays` says what "the same" is) then needs no
Python at all. Nothing is described a second time: what cannot be replayed, or is not worth it, is simply not learnt.
"""

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from normkernels._backends import triton_interprets
from normkernels._elementwise import elementwise_step

MOST_STEPS = 512
_EMPTY = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"}
_CONSTANT, _TENSOR, _LIST = range(3)
_lock = threading.Lock()
_active: "Recorder | None" = None


def active() -> "Recorder | None":
    """The recorder that watches this thread."""
    return _active if _active is not None and _active.thread == threading.get_ident() else None


def watch(recorder: "Recorder") -> bool:
    """Whether it may: one at a time."""
    global _active
    if not _lock.acquire(blocking=False):
        return False
    _active = recorder
    return True


def unwatch() -> None:
    global _active
    _active = None
    _lock.release()


def refuse(why: str) -> None:
    """The call that is made now depends on more than its key; it has to be made by Python each time."""
    if recorder := active():
        recorder.refuse(why)


class Recorder(TorchDispatchMode):
    """The steps of a call, and a register for each of its tensors."""

    def __init__(self, inputs: Sequence[Tensor | None]) -> None:
        super().__init__()
        self.thread = threading.get_ident()
        self.why: str | None = None
        self.steps: list[tuple] = []
        self.after: list[tuple] = []
        self.graphs: list[tuple] = []  # (recipe, ctx, args, outputs, kept, how many outputs have a gradient)
        self.inputs = len(inputs)
        self._alive = [t for t in inputs if t is not None]  # so that no other tensor takes the identity of one
        self._registers: dict[int, int] = {}
        for i, t in enumerate(inputs):
            if t is not None:
                self._registers.setdefault(id(t), i)
        self._count = len(inputs)
        self._made = {r: r for r in self._registers.values()}  # register -> whose memory it is
        self._absent: int | None = None
        self.written: set[int] = set()

    def refuse(self, why: str) -> None:
        self.why = self.why or why

    def register(self, t: Tensor | None) -> int:
        """-1: None."""
        if t is None:
            return -1
        if id(t) not in self._registers:
            self.refuse("a tensor comes from elsewhere")
            return -1
        return self._registers[id(t)]

    def new(self, t: Tensor, memory: int | None = None) -> int:
        register = self._registers[id(t)] = self._count
        self._alive.append(t)
        self._count += 1
        self._made[register] = register if memory is None else self._made[memory]
        return register

    def memory(self, register: int) -> int:
        """The register whose memory that is; -1 for what is not known."""
        return self._made.get(register, -1)

    def argument(self, value: Any) -> tuple[int, Any]:
        if isinstance(value, Tensor):
            return _TENSOR, self.register(value)
        if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            return _LIST, [self.register(v) for v in value]
        return _CONSTANT, value

    def launched(self, value: Any) -> tuple[int, Any]:
        """The same of a launch. A tuple of tensors may lack some: a register that nothing fills stands for them."""
        if not isinstance(value, tuple) or not any(isinstance(v, Tensor) for v in value):
            return self.argument(value)
        if self._absent is None and any(v is None for v in value):
            self._absent, self._count = self._count, self._count + 1
        return _LIST, [self._absent if v is None else self.register(v) for v in value]

    def kernel(
        self, name: str, backend: str | None, function: Callable, args: Sequence, written: Sequence[int]
    ) -> None:
        """Run one of our own ops: one step, but of Triton each launch and each buffer that it needs."""
        given = [self.argument(a) for a in args]
        if backend == "triton" and not triton_interprets():
            with self.launches():
                function(*args)
        else:
            with _disable_current_modes():  # what it does inside is its own
                function(*args)
            op = "op", [], f"normkernels_C::{name}", "", given
            self.steps.append(op if backend == "native" else ("python", function, given))
        self._write(args[i] for i in written)

    @contextlib.contextmanager
    def launches(self) -> Iterator[None]:
        """Inside, what Triton launches is a step: the compiled kernel itself, which costs a tenth of finding it."""
        jit: Any = importlib.import_module("triton.runtime.jit").JITFunction
        run = jit.run

        def seen(kernel, *args, grid, warmup, **kwargs):
            compiled = run(kernel, *args, grid=grid, warmup=warmup, **kwargs)
            if active() is self:
                own = {k: v for k, v in kwargs.items() if k in kernel.signature.parameters}
                bound = kernel.signature.bind(*args, **own)
                bound.apply_defaults()
                launch = compiled[(*grid, 1, 1)[:3]]
                self.steps.append(("python", launch, [self.launched(a) for a in bound.arguments.values()]))
            return compiled

        jit.run = seen
        try:
            yield
        finally:
            jit.run = run

    def _write(self, tensors) -> None:
        for t in tensors:
            if isinstance(t, Tensor) and (root := self._made.get(self.register(t), self.inputs)) < self.inputs:
                self.written.add(root)

    def then(self, function: Callable[..., None], *args: Tensor | Sequence[Tensor]) -> None:
        """function(*args), which needs no ops, once the outputs have their history."""
        self.after.append(("python", function, [self.argument(a) for a in args]))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if self.why is None:
            self.op(func, args, kwargs or {}, found)
            if len(self.steps) > MOST_STEPS:
                self.refuse("a long call gains nothing")
        return found

    def op(self, func, args, kwargs, found) -> None:
        """One of torch's ops, that returned found."""
        schema, results = func._schema, found if isinstance(found, tuple | list) else (found,)
        values = [*args, *(kwargs.get(a.name, a.default_value) for a in schema.arguments[len(args) :])]
        if not all(isinstance(r, Tensor) for r in results):
            if any(isinstance(v, Tensor) for v in values):
                self.refuse(f"{schema.name} tells a value")
            return None
        fresh = [r for r in results if id(r) not in self._registers]
        if schema.name in _EMPTY and fresh:
            self.steps.append(("empty", self.new(results[0]), results[0].detach()))
            return None
        if (
            isinstance(found, Tensor)
            and schema.name == "aten::detach"
            and (same := self.register(values[0])) >= self.inputs
        ):
            self._registers[id(found)] = same  # nothing but another name: torch's factories hand out such ones
            return self._alive.append(found)
        sources = [v for v in values if isinstance(v, Tensor)]
        if fresh and all(self._viewed(r, sources) for r in fresh):
            return None
        given = [self.argument(v) for v in values]
        if any(kind == _LIST and -1 in v for kind, v in given):
            return self.refuse(f"{schema.name} takes lists with None")
        if step := elementwise_step(self, schema.name.removeprefix("aten::"), values, found):
            self.steps.append(step)
            self._write(values[:1] if schema.name.endswith("_") else [])
            return None
        outs = [self.new(r) if id(r) not in self._registers else -1 for r in results]
        self.steps.append(("op", outs, schema.name, schema.overload_name, given))
        self._write(v for v, a in zip(values, schema.arguments, strict=True) if a.alias_info and a.alias_info.is_write)
        return None

    def _viewed(self, t: Tensor, sources: Sequence[Tensor]) -> bool:
        storage = t.untyped_storage()._cdata
        for source in sources:
            if source.untyped_storage()._cdata == storage and source.dtype == t.dtype:
                of = self.register(source)
                offset = t.storage_offset() - source.storage_offset()
                self.steps.append(("view", self.new(t, of), of, t.detach(), offset))
                return True
        return False
