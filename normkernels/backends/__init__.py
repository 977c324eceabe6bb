"""What a backend is, which one runs a call, and why one cannot.

A backend is a set of functions ``<stem>_fwd`` / ``<stem>_bwd`` with the signatures of the schemas in
``normkernels/ops``. They fill the buffers they are given and return nothing. ``triton`` and ``reference`` are found by
file name (``backends/<name>/<stem>.py``), ``native`` by the op that ``normkernels._C`` registered for the device.
"""

import contextlib
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator

import torch

NAMES = ("triton", "native", "reference")
AUTOMATIC = {"cuda": ("triton", "native", "reference"), "cpu": ("native", "reference")}


def check_name(name: str | None, source: str) -> str | None:
    """``name`` if it is a backend or None, else a ValueError that lists the backends."""
    if name is not None and name not in NAMES:
        raise ValueError(f"{source}: backend must be one of {', '.join(NAMES)}, got {name!r}")
    return name


# One request for the whole process, as torch.set_num_threads: torch.compile guards a global, not a context variable.
_request: str | None = check_name(os.environ.get("NORMKERNELS_BACKEND") or None, "NORMKERNELS_BACKEND")


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every call inside the ``with`` block on backend ``name`` (None: choose automatically).

    A ``backend=`` argument still wins. Process-wide, not per thread. Raises ValueError for an unknown name; a call that
    the backend cannot run raises RuntimeError with the reason.
    """
    global _request
    before, _request = _request, check_name(name, "use_backend")
    try:
        yield
    finally:
        _request = before


def requested(backend: str | None, op: str) -> str | None:
    """The backend asked for: the argument, else ``use_backend``, else ``NORMKERNELS_BACKEND``, else None: automatic."""
    return _request if backend is None else check_name(backend, op)


@functools.cache
def resolve(op: str, device: str, asked: str | None) -> Callable[..., None]:
    """The function that runs ``op`` (``"layer_norm_fwd"``) on tensors of ``device`` (``"cpu"``, ``"cuda"``)."""
    candidates = (asked,) if asked else AUTOMATIC.get(device, ("reference",))
    reasons = {}
    for name in candidates:
        reasons[name] = unusable(name, op, device)
        if reasons[name] is None:
            if name == "reference" and len(candidates) > 1:
                _say_once(device, "; ".join(f"{k}: {v}" for k, v in reasons.items() if v))
            return _load(name, op)
    raise RuntimeError(f"{op}: " + "; ".join(f"backend {k!r} cannot run here: {v}" for k, v in reasons.items()))


@functools.cache
def _say_once(device: str, missing: str) -> None:
    warnings.warn(f"normkernels runs in plain PyTorch on {device}. {missing}", stacklevel=4)


def unusable(name: str, op: str, device: str) -> str | None:
    """Why backend ``name`` cannot run ``op`` on tensors of ``device``; None if it can."""
    if name == "native":
        return _native_unusable(op, device)
    if name == "triton":
        reason = _triton_unusable(device)
        if reason:
            return reason
    try:
        _load(name, op)
    except ModuleNotFoundError as error:
        if error.name != _module(name, op):
            raise
        return "not written yet"
    return None


def backends(device: str | None = None) -> dict[str, dict[str, str | None]]:
    """For every op, for every backend: None if it runs on tensors of ``device``, else the reason why not.

    ``device`` is ``"cuda"`` or ``"cpu"``; None means cuda if there is one, else cpu.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    table = {}
    for op in sorted(vars(torch.ops.normkernels)):
        if op.endswith(("_fwd", "_bwd")):
            table[op] = {name: unusable(name, op, device) for name in NAMES}
    return table


def _module(name: str, op: str) -> str:
    return f"normkernels.backends.{name}.{op.rpartition('_')[0]}"


def _load(name: str, op: str) -> Callable[..., None]:
    if name == "native":
        return getattr(torch.ops.normkernels_C, op).default
    return getattr(importlib.import_module(_module(name, op)), op)


def _native_unusable(op: str, device: str) -> str | None:
    try:
        importlib.import_module("normkernels._C")
    except ImportError as error:
        how = "reinstall with a C++ compiler at hand: pip install --no-build-isolation ."
        return f"the extension normkernels._C is not built ({error}); {how}"
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device)
    if key is None:
        return f"runs on cpu and cuda, not {device}"
    if not hasattr(torch.ops.normkernels_C, op):
        return "not written yet"
    if torch._C._dispatch_has_kernel_for_dispatch_key(f"normkernels_C::{op}", key):
        return None
    built = f"this build has no {key} kernels"
    return f"{built}; reinstall with nvcc and a CUDA build of torch" if device == "cuda" else built


def triton_version() -> str:
    """Of the module that is imported by this name, if it says so."""
    return str(getattr(sys.modules.get("triton"), "__version__", "of no version"))


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
