"""What a backend is, which one runs a call, and why one cannot.

A backend is a set of functions ``<stem>_fwd`` / ``<stem>_bwd``, one for each op of ``normkernels/ops``. They fill the
buffers they are given and return nothing. Those of ``triton`` and ``reference`` are found by file name
(``_backends/<name>/<stem>.py``) and take the op's arguments as one tuple with the schema's names; ``native`` is the op
that ``normkernels._C`` registered for the device.
"""

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator

import torch
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from normkernels._checks import PLAIN, fail
from normkernels._messages import meant, shown, warn
from normkernels._place import to_build
from normkernels._tables import Backends

NAMES = ("triton", "native", "reference")
KEYS = {"cpu": torch._C.DispatchKey.CPU, "cuda": torch._C.DispatchKey.CUDA}
ARGUMENTS: dict[str, Callable[..., tuple]] = {}  # of each op, as _library defines it: the tuple of its arguments
AUTOMATIC = {"cuda": ("triton", "native", "reference"), "cpu": ("native", "reference")}


def check_name(name: str | None, source: str) -> str | None:
    """``name`` if it is a backend or None, else a ValueError that lists the backends."""
    if name is not None and name not in NAMES:
        fail(source, "backend", f"be one of {', '.join(NAMES)}", shown(name), meant(name, NAMES))
    return name


# One request for the whole process, as torch.set_num_threads: torch.compile guards a global, not a context variable.
_request: str | None = check_name(os.environ.get("NORMKERNELS_BACKEND") or None, "NORMKERNELS_BACKEND")


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every call inside the ``with`` block on backend ``name`` (None: choose automatically).

    A ``backend=`` argument still wins. Process-wide, not per thread.

    Args:
        name: ``"triton"``, ``"native"``, ``"reference"`` or None.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: from a call inside that the backend cannot run, with the reason.

    Example:
        >>> with nk.use_backend("reference"):
        ...     y = nk.LayerNorm(8)(torch.randn(2, 8))
    """
    global _request
    before, _request = _request, check_name(name, "use_backend")
    try:
        yield
    finally:
        _request = before


def requested(backend: str | None, op: str, input: torch.Tensor | None = None) -> str | None:
    """The backend asked for: the argument, else ``use_backend``, else ``NORMKERNELS_BACKEND``, else None: automatic.

    What looks inside a call needs ordinary torch ops, so the reference; another backend is refused there.
    """
    asked = _request if backend is None else check_name(backend, op)
    if asked == "reference":
        return asked
    reason = transformed() or (None if type(input) in PLAIN else _wrapper(input))
    if reason is None:
        return asked
    if asked is not None:
        raise RuntimeError(
            f"{op}: backend {asked!r} cannot run here: {reason}, which only ordinary torch ops let it do"
        )
    return "reference"


def transformed() -> str | None:
    """What looks inside the calls that are made now, if anything does."""
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func looks inside"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace looks inside"
    if forward_ad._current_level >= 0:
        return "forward-mode AD looks inside"
    return None


def _wrapper(input: torch.Tensor | None) -> str | None:
    """Tensors made of others see ops one by one, and know torch's own."""
    if input is None or torch.compiler.is_compiling():
        return None
    wraps = is_traceable_wrapper_subclass(input) and not isinstance(input, FunctionalTensor)
    return f"{type(input).__name__} looks inside" if wraps else None


@functools.cache
def resolve(op: str, device: str, asked: str | None) -> Callable[..., None]:
    """What runs ``op`` (``"layer_norm_fwd"``), given its arguments, on ``device`` (``"cpu"``, ``"cuda"``)."""
    candidates = (asked,) if asked else AUTOMATIC.get(device, ("reference",))
    reasons = {}
    for name in candidates:
        reasons[name] = unusable(name, op, device)
        if reasons[name] is None:
            if name == "reference" and len(candidates) > 1:
                _say_once(device, "; ".join(f"{k}: {v}" for k, v in reasons.items() if v))
            return _load(name, op, device)
    raise RuntimeError(f"{op}: " + "; ".join(f"backend {k!r} cannot run here: {v}" for k, v in reasons.items()))


def chosen(op: str, device: str, asked: str | None) -> str | None:
    """The name of the backend that runs ``op``, for what is compiled; None where none can."""
    candidates = (asked,) if asked else AUTOMATIC.get(device, ("reference",))
    return next((name for name in candidates if unusable(name, op, device) is None), None)


chosen._dynamo_marked_constant = True  # torch.compiler.assume_constant_result, whose import costs a second


def native(op: str) -> torch._ops.OpOverload:
    """The op of the extension."""
    return getattr(torch.ops.normkernels_C, op).default


@functools.cache
def _say_once(device: str, missing: str) -> None:
    warn(f"normkernels runs in plain PyTorch on {device}. {missing}")


def unusable(name: str, op: str, device: str) -> str | None:
    """Why backend ``name`` cannot run ``op`` on tensors of ``device``; None if it can."""
    if name == "native":
        return _native_unusable(op, device)
    if name == "triton":
        reason = _triton_unusable(device)
        if reason:
            return reason
    try:
        _load(name, op, device)
    except ModuleNotFoundError as error:
        if error.name != _module(name, op):
            raise
        return "not written yet"
    return None


def backends(device: str | None = None) -> dict[str, dict[str, str | None]]:
    """For every op, for every backend: None if it runs on tensors of ``device``, else the reason why not.

    Args:
        device: ``"cuda"`` or ``"cpu"``; None means cuda if there is one, else cpu.

    Returns:
        A table ``{op: {backend: reason or None}}``, which a notebook shows as one.

    Example:
        >>> print(nk.backends("cpu")["layer_norm_fwd"]["reference"])
        None
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    ops = [op for op in sorted(vars(torch.ops.normkernels)) if op.endswith(("_fwd", "_bwd"))]
    return Backends({op: {name: unusable(name, op, device) for name in NAMES} for op in ops})


def _module(name: str, op: str) -> str:
    return f"normkernels._backends.{name}.{op.rpartition('_')[0]}"


def _load(name: str, op: str, device: str) -> Callable[..., None]:
    if name == "native":  # past the kernels for grad mode, which are for exported programs
        return functools.partial(native(op).redispatch, torch._C.DispatchKeySet(KEYS[device]))
    function, given = getattr(importlib.import_module(_module(name, op)), op), ARGUMENTS.get(op)
    return function if given is None else lambda *args: function(given(*args))


def _native_unusable(op: str, device: str) -> str | None:
    try:
        importlib.import_module("normkernels._C")
    except ImportError as error:
        return f"the extension normkernels._C is not built ({error}); {to_build()}"
    if device not in KEYS:
        return f"runs on cpu and cuda, not {device}"
    if not hasattr(torch.ops.normkernels_C, op):
        return "not written yet"
    key = KEYS[device].name
    if torch._C._dispatch_has_kernel_for_dispatch_key(f"normkernels_C::{op}", key):
        return None
    why = importlib.import_module("normkernels._C").build_info()["cuda"].removeprefix("not built: ").replace("_", " ")
    return f"this build has no {key} kernels" + (f" ({why}; docs/install.md)" if device == "cuda" else "")


def triton_version() -> str:
    """Of the module that is imported by this name, if it says so."""
    return str(getattr(sys.modules.get("triton"), "__version__", "of no version"))


def triton_interprets() -> bool:
    """Whether Triton, which can be used, runs its kernels in Python."""
    return importlib.import_module("triton").knobs.runtime.interpret


def _triton_unusable(device: str) -> str | None:
    try:
        triton = importlib.import_module("triton")
        importlib.import_module("triton.language")
        interpreted = triton.knobs.runtime.interpret
    except Exception as error:  # whatever another module of this name, or an old one, does
        return f"triton {triton_version()} cannot be used ({type(error).__name__}: {error}); pip install 'triton>=3.6'"
    if device == "cuda" or (device == "cpu" and interpreted):
        return None
    hint = " (TRITON_INTERPRET=1, set before Python starts, interprets it there: slow, for checking)"
    return f"runs on cuda, not {device}" + (hint if device == "cpu" else "")
