"""Torch's elementwise ops on a few numbers: steps that the extension ``_replay`` does itself, without torch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# The ops that the extension has, to the same bits (so no sqrt, which torch rounds in its own way), and which of their
# arguments they read.
_SMALL = {
    "add": (0, 1), "sub": (0, 1), "mul": (0, 1), "div": (0, 1), "lt": (0, 1), "gt": (0, 1), "lerp": (0, 1, 2),
    "clamp": (0, 1, 2), "where": (0, 1, 2), "abs": (0,), "clone": (0,), "copy_": (1,), "_to_copy": (0,),
    "add_": (0, 1), "mul_": (0, 1), "lerp_": (0, 1, 2),
}  # fmt: skip
_MOST_NUMBERS, _NUMBERS = 4096, {torch.float32, torch.float64, torch.int64}


def elementwise_step(recorder: Any, name: str, values: Sequence[Any], out: Any) -> tuple | None:
    """The step of an elementwise op on a few numbers of one dtype."""
    if name not in _SMALL or not 0 < out.numel() <= _MOST_NUMBERS:
        return None
    read = [values[i] for i in _SMALL[name]]
    alpha_or_rounding = values[2:] if len(read) == 2 else []
    if any(v is None for v in read) or alpha_or_rounding not in ([], [1]):
        return None
    of = read[1:] if name == "where" else read
    dtypes = {v.dtype for v in of if isinstance(v, Tensor)}
    floats = {torch.float32, torch.float64}
    result = {"lt": {torch.bool}, "gt": {torch.bool}, "_to_copy": floats & {out.dtype}}.get(name, dtypes)
    if len(dtypes) != 1 or {out.dtype} != result or not dtypes <= _NUMBERS:
        return None
    for t in (out, *read):
        if not isinstance(t, Tensor):
            continue
        fits = t.numel() in (1, out.numel()) or (name == "where" and t.shape == out.shape[-t.dim() :])
        if not (fits and t.is_cpu and t.is_contiguous()):
            return None
    same = {"copy_": "copy", "clone": "copy", "_to_copy": f"to_{out.dtype}".replace("torch.", "")}
    op = same.get(name, name.removesuffix("_"))
    given, in_place = [recorder.argument(v) for v in read], name.endswith("_")
    register = recorder.register(out) if in_place else recorder.new(out)
    return "small", op, register, in_place, out.detach(), dtypes.pop(), given
