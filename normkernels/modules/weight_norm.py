"""Weight norm as a parametrization of a module, and its data-dependent first values."""

from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normkernels._backends import check_name
from normkernels._checks import fail
from normkernels.ops._filters import check_weight
from normkernels.ops.weight_norm import weight_norm as weight_norm_function

Layer = TypeVar("Layer", bound=nn.Module)


class WeightNorm(nn.Module):
    """(g, v) -> w = g v / |v|."""

    def __init__(self, dim: int | None, backend: str | None) -> None:
        super().__init__()
        self.dim: int | None = dim
        self.backend: str | None = backend

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_norm_function(weight_v, weight_g, self.dim, backend=self.backend)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """w as its own direction, and its lengths in torch's shape."""
        if self.dim is None:
            return torch.linalg.vector_norm(weight), weight
        others = [d for d in range(weight.dim()) if d != self.dim]
        return torch.linalg.vector_norm(weight, dim=others, keepdim=True) if others else weight.abs(), weight

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


def parameter(function: str, module: nn.Module, name: str) -> Tensor:
    """The parameter of that name, or what its parametrizations give; a ValueError if it cannot be normalised."""
    if module._parameters.get(name) is None and not parametrize.is_parametrized(module, name):
        fail(function, "name", f"be that of a parameter of {type(module).__name__}", repr(name))
    found = getattr(module, name)
    if nn.parameter.is_lazy(found):
        fail(function, "module", "have its parameters (a lazy one has them after a call)", f"no {name} yet")
    check_weight(function, name, found)
    return found


def weight_norm(module: Layer, name: str = "weight", dim: int | None = 0, *, backend: str | None = None) -> Layer:
    """Give ``module`` weight norm: ``module.weight`` is then g v / |v| of two parameters.

    torch.nn.utils.parametrizations.weight_norm with our kernels: the same keys (``parametrizations.weight.original0``
    for g, ``original1`` for v), the same first values, and checkpoints of both torch's own and its older form
    (``weight_g``, ``weight_v``) load. torch.nn.utils.parametrize.remove_parametrizations takes it off again, and
    parametrize.cached() computes each weight once.

    Args:
        module: it is changed in place.
        name: of the parameter.
        dim: of the filters, 0 for linear and convolution weights; None or -1: one length for the whole weight.
        backend: as in :func:`normkernels.functional.weight_norm`, which has formula, dtypes and errors.

    Returns:
        module.

    Raises:
        ValueError: a weight could not be computed; the module is then as it was.

    Example:
        >>> layer = nk.parametrizations.weight_norm(torch.nn.Linear(5, 3))
        >>> layer.parametrizations.weight.original0.shape
        torch.Size([3, 1])

    Source: Salimans & Kingma 2016, arXiv:1602.07868, equations 2 and 3.
    """
    weight = parameter("weight_norm", module, name)
    check_name(backend, "weight_norm")
    if parametrize.is_parametrized(module, name):
        fail("weight_norm", "name", "be that of a parameter without parametrizations", repr(name))
    if dim is not None and not (isinstance(dim, int) and -1 <= dim < weight.dim()):
        fail("weight_norm", "dim", f"be None or an int in [-1, {weight.dim()})", dim)
    parametrize.register_parametrization(module, name, WeightNorm(None if dim == -1 else dim, backend), unsafe=True)
    module._register_load_state_dict_pre_hook(partial(_load_old_keys, name))
    return module


def _load_old_keys(name: str, state_dict: dict, prefix: str, *_) -> None:
    """weight_g and weight_v, as torch.nn.utils.weight_norm called them."""
    old = [f"{prefix}{name}_{part}" for part in "gv"]
    if all(key in state_dict for key in old):
        for i, key in enumerate(old):
            state_dict[f"{prefix}parametrizations.{name}.original{i}"] = state_dict.pop(key)


def _normalised(module: nn.Module) -> Any:
    """Its weight norm, or None."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    return next((p for p in module.parametrizations["weight"] if isinstance(p, WeightNorm)), None)  # type: ignore


@torch.no_grad()
def init_weight_norm_(model: Layer, batch: Tensor) -> Layer:
    r"""Data-dependent first values: every layer with weight norm gives mean 0 and variance 1 on ``batch``.

    In the order of the forward pass, with :math:`t = v \cdot x / \|v\|` of each output channel over batch and space:
    :math:`g = 1 / \text{std}(t)`, :math:`b = -\text{mean}(t) / \text{std}(t)`.

    Args:
        model: called once with ``batch``; its linear and convolution layers with our weight norm along dim 0 are set.
            A layer without a bias keeps its mean.
        batch: an input of the model, of several samples.

    Returns:
        model.

    Raises:
        ValueError: a layer is of another kind, is called twice, or one of its channels is constant on this batch; all
            parameters are then as they were.

    Example:
        >>> layer = nk.parametrizations.weight_norm(torch.nn.Linear(5, 3))
        >>> x = torch.randn(50, 5)
        >>> y = nk.init_weight_norm_(torch.nn.Sequential(layer), x)(x)
        >>> torch.allclose(y.std(0, correction=0), torch.tensor(1.0), atol=1e-5)
        True

    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 3.
    """
    layers: list[tuple[str, Any]] = [(name, m) for name, m in model.named_modules() if _normalised(m)]
    lengths = {m: m.parametrizations["weight"].original0 for _, m in layers}
    before = [(t, t.clone()) for name, m in layers for t in (lengths[m], m.bias) if isinstance(t, Tensor)]
    seen: set[nn.Module] = set()

    def set_one(name: str):
        def hook(module: Any, _, y: Tensor) -> Tensor:
            if module in seen:
                fail("init_weight_norm_", "model", "call each layer once", f"{name} called again")
            seen.add(module)
            channels = -1 if isinstance(module, nn.Linear) else 1
            values = y.movedim(channels, 0).flatten(1).double()
            mean, std = values.mean(1), values.std(1, correction=0)
            if not (std > 0).all():
                fail("init_weight_norm_", "batch", "let every channel vary", f"{name}, which is constant in some")
            lengths[module].copy_((1 / std).view(lengths[module].shape))
            shift = -mean / std if module.bias is not None else torch.zeros_like(mean)
            if isinstance(module.bias, Tensor):
                module.bias.copy_(shift)
            shape = [-1] + [1] * ((y.dim() - 2) if channels == 1 else 0)
            return (y * (1 / std).view(shape).to(y.dtype)) + shift.view(shape).to(y.dtype)

        return hook

    handles = []
    try:
        for name, module in layers:
            if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or _normalised(module).dim != 0:
                rule = "have weight norm along dim 0 of linear and convolution layers only"
                fail("init_weight_norm_", "model", rule, f"{name}: {type(module).__name__}")
            lengths[module].fill_(1)
            if module.bias is not None:
                module.bias.zero_()
            handles.append(module.register_forward_hook(set_one(name)))
        model(batch)
    except BaseException:
        for t, value in before:
            t.copy_(value)
        raise
    finally:
        for handle in handles:
            handle.remove()
    return model
