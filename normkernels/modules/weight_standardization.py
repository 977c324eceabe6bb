"""Weight standardisation as a parametrization of a module."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normkernels._backends import check_name
from normkernels._checks import fail
from normkernels.modules.weight_norm import Layer, parameter
from normkernels.ops.weight_standardization import weight_standardization as weight_standardization_function


class WeightStandardization(nn.Module):
    """w -> gain (w - mean) / sqrt(var + eps)."""

    gain: Tensor | None

    def __init__(self, weight: Tensor, gain: float | None, eps: float, backend: str | None) -> None:
        super().__init__()
        self.eps: float = eps
        self.backend: str | None = backend
        made = {"device": weight.device, "dtype": weight.dtype}
        values = None if gain is None else nn.Parameter(torch.full((len(weight),), float(gain), **made))
        self.register_parameter("gain", values)

    def forward(self, weight: Tensor) -> Tensor:
        return weight_standardization_function(weight, self.gain, self.eps, backend=self.backend)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself: what is standardised."""
        return weight

    def extra_repr(self) -> str:
        return f"eps={self.eps}, gain={self.gain is not None}"


def weight_standardization(
    module: Layer, name: str = "weight", *, gain: float | None = None, eps: float = 1e-5, backend: str | None = None
) -> Layer:
    """Give ``module`` weight standardisation: each filter of ``module.weight`` then has mean 0 and variance 1.

    Args:
        module: it is changed in place. ``module.parametrizations.weight.original`` is the
            parameter that is standardised.
        name: of the parameter.
        gain: first value of a learnt gain of each filter, ``parametrizations.weight.0.gain``; None: no gain. Scaled
            weight standardisation starts with 1 / sqrt(fan_in).
        eps, backend: as in :func:`normkernels.functional.weight_standardization`, which has formula, dtypes and errors.

    Returns:
        module.

    Raises:
        ValueError: a weight could not be computed; the module is then as it was.

    Example:
        >>> layer = nk.parametrizations.weight_standardization(torch.nn.Conv2d(3, 4, 3), gain=1.0)
        >>> layer.parametrizations.weight[0].gain.shape
        torch.Size([4])

    Source: Qiao et al. 2019, arXiv:1903.10520, equations 3 and 4.
    """
    weight = parameter("weight_standardization", module, name)
    check_name(backend, "weight_standardization")
    parametrizations = module.parametrizations[name] if parametrize.is_parametrized(module, name) else []  # type: ignore
    if any(isinstance(p, WeightStandardization) for p in parametrizations):
        fail("weight_standardization", "name", "be that of a parameter that is not standardised yet", repr(name))
    parametrize.register_parametrization(module, name, WeightStandardization(weight, gain, eps, backend))
    return module
