"""What is said to a user beside the rule: the name that was meant, and a warning at the line that is the user's."""

import difflib
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

OWN = tuple(str(Path(module).parent) for module in (__file__, str(torch.__file__)))
# what others call an activation, a backend, an argument: one of a line stands for any other
SAME = (
    ("silu", "swish"), ("gelu_tanh", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "approximate_gelu"),
    ("identity", "linear", "none"), ("leaky_relu", "lrelu", "leaky"), ("sigmoid", "logistic"),
    ("native", "cpp", "c++", "cpu", "cuda", "_c"), ("reference", "torch", "pytorch", "python", "eager"),
    ("residual", "skip", "prenorm", "add"), ("activation", "act", "act_layer", "act_type", "nonlinearity", "norm_act"),
    ("eps", "epsilon", "variance_epsilon", "layer_norm_eps"), ("slope", "negative_slope", "leakiness"),
    ("affine", "elementwise_affine", "learnable"), ("bias", "use_bias", "elementwise_bias"),
    ("weight_offset", "zero_centered", "zero_centered_gamma", "add_unit_offset"),
    ("normalized_shape", "num_features", "num_channels", "hidden_size", "dim", "channels", "features", "size"),
    ("num_groups", "groups", "num_group"), ("weight", "gamma", "scale"), ("bias", "beta", "shift"),
    ("input", "x", "hidden_states"), ("momentum", "decay"), ("backend", "impl", "implementation"),
)  # fmt: skip


def meant(given: Any, names: Iterable[str]) -> str:
    """``did you mean 'silu'?``, where one of the names is near what was given: a string, a function or a module."""
    kind = type(given) if isinstance(given, torch.nn.Module) else given
    word = str(kind if isinstance(kind, str) else getattr(kind, "__name__", "")).lower()
    word += "_tanh" if word == "gelu" and getattr(given, "approximate", None) == "tanh" else ""
    plain = {name.replace("_", ""): name for name in names}
    same = [name for line in SAME if word in line for name in line if name.replace("_", "") in plain]
    near = difflib.get_close_matches(word.replace("_", ""), plain, 1)
    found = same[:1] or [plain[name] for name in near]
    return f"did you mean {found[0]!r}?" if found else ""


def shown(value: Any) -> str:
    """A value in one short line."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if callable(value) and not isinstance(value, torch.nn.Module):
        kind = "class" if isinstance(value, type) else "function"
        return f"the {kind} {getattr(value, '__name__', type(value).__name__)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def warn(message: str) -> None:
    """Points at the first line that is neither ours nor torch's."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OWN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
