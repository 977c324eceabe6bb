"""What an activation makes of a standard normal input: the constants of Normalization Propagation."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkernels._activations import ACTIVATIONS
from normkernels._checks import fail

REACH = 30.0  # beyond it the normal density is 1e-196
PRECISION = 1e-12  # of the adaptive quadrature, absolute


class Moments(NamedTuple):
    """Standard deviation and mean of f(z), and the gain of its Jacobian, for z ~ N(0, 1)."""

    c1: float
    c2: float
    jacobian_factor: float


# c1, c2 and jacobian_factor, correct to the last digit; quadrature in 50 digits
TABLE = {
    "identity": Moments(1.0, 0.0, 1.0),
    "relu": Moments(0.583819370103548949, 0.398942280401432678, 1.211173896236316620),
    "relu6": Moments(0.583819368561997917, 0.398942280245075698, 1.211173898239442276),
    "tanh": Moments(0.627928730349106717, 0.0, 1.085268276650607540),
    "sigmoid": Moments(0.208276344931662757, 0.5, 1.016657459540791226),
    "elu": Moments(0.786879001735426423, 0.160520572266556050, 1.038755724643558710),
    "selu": Moments(1.0, 0.0, 1.035169064672915763),
    "gelu": Moments(0.587914969212683857, 0.282094791773878143, 1.148409757388721661),
    "gelu_tanh": Moments(0.587918315642252119, 0.282038588078788712, 1.148361627434076201),
    "silu": Moments(0.559538467841506785, 0.206620964141907037, 1.100945554855965981),
    "softplus": Moments(0.521070534381439316, 0.806059183347439785, 1.039484512875236321),
    "hardtanh": Moments(0.718372153526090751, 0.0, 1.150170222963876900),
    "hardsigmoid": Moments(0.166250085884226226, 0.5, 1.001151552606792391),
    "hardswish": Moments(0.551306977609480646, 0.166216700656123302, 1.086100916805439101),
    "mish": Moments(0.628130689291777548, 0.240403888374791444, 1.101934324399343011),
    "softsign": Moments(0.427801380627210575, 0.0, 1.115352128526048339),
}


def prelu_moments(slope: Any) -> tuple[Any, Any]:
    """c1 and c2 of max(z, 0) + slope min(z, 0); of a float or, differentiably, of a tensor."""
    variance = ((1 + slope * slope) - (1 - slope) * (1 - slope) / math.pi) / 2
    return variance**0.5, (1 - slope) / math.sqrt(2 * math.pi)


def activation_moments(activation: str | Callable[[Tensor], Tensor] | None, slope: float | None = None) -> Moments:
    r"""``(c1, c2, jacobian_factor)`` of an activation f, with z ~ N(0, 1).

    .. math::
        c_1 = \sqrt{\text{Var} f(z)}, \quad c_2 = \text{E} f(z), \quad
        \text{jacobian\_factor} = \sqrt{\text{E} f'(z)^2} / c_1

    Args:
        activation: None, a name of ``normkernels.ACTIVATIONS`` or ``"prelu"``; or a callable, an element-wise function
            of a tensor that torch can differentiate.
        slope: of ``"leaky_relu"`` (None: 0.01) and ``"prelu"`` (None: 0.25) for negative values.

    Returns:
        Three floats, a :class:`Moments`. For names they are exact to the last digit; for a callable they come from
        adaptive Gauss-Kronrod quadrature (``scipy.integrate.quad``) in float64, with an absolute error below 1e-10 for
        functions that are smooth but for a few kinks and grow no faster than an exponential.

    Raises:
        ValueError: the name is unknown, the callable returns no tensor of its argument's shape, the integrals are not
            finite, or c1 is 0: a constant cannot be normalised.
        ImportError: a callable was given and SciPy is not installed.

    Example:
        >>> c1, c2, jacobian_factor = nk.activation_moments("relu")
        >>> round(c1, 4), round(c2, 4)
        (0.5838, 0.3989)

    Source: Arpit et al. 2016, arXiv:1603.01431, section 3.2 and equation 12.
    """
    name = "activation_moments"
    if callable(activation):
        return _quadrature(activation)
    if activation in ("leaky_relu", "prelu"):
        a = (0.01 if activation == "leaky_relu" else 0.25) if slope is None else float(slope)
        c1, c2 = prelu_moments(a)
        return Moments(c1, c2, math.sqrt((1 + a * a) / 2) / c1)
    if activation is not None and activation not in TABLE:
        fail(name, "activation", f"be None, a callable or one of prelu, {', '.join(ACTIVATIONS)}", repr(activation))
    return TABLE[activation or "identity"]


def _quadrature(function: Callable[[Tensor], Tensor]) -> Moments:
    try:
        from scipy.integrate import quad
    except ImportError as error:
        raise ImportError(f"activation_moments of a callable needs SciPy ({error}); pip install scipy") from error

    def value_and_slope(z: float) -> tuple[float, float]:
        with torch.enable_grad():
            x = torch.tensor([z], dtype=torch.float64, requires_grad=True)
            y = function(x)
            if not isinstance(y, Tensor) or y.shape != x.shape:
                fail("activation_moments", "activation", "return a tensor of its argument's shape", type(y).__name__)
            slope = torch.autograd.grad(y, x, allow_unused=True)[0] if y.requires_grad else None
        return y.item(), 0.0 if slope is None else slope.item()

    def mean(of: Callable[[float, float], float]) -> float:
        def weighted(z: float) -> float:
            return of(*value_and_slope(z)) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        found = quad(weighted, -REACH, REACH, points=(-8, -1, 0, 1, 8), limit=500, epsabs=PRECISION, epsrel=PRECISION)
        return found[0]

    c2 = mean(lambda y, _: y)
    c1, slope = math.sqrt(mean(lambda y, _: (y - c2) ** 2)), math.sqrt(mean(lambda _, dy: dy * dy))
    if not (math.isfinite(c1 + c2 + slope) and c1 > 1e-9):
        fail("activation_moments", "activation", "have finite moments and not be constant", f"c1 = {c1}, c2 = {c2}")
    return Moments(c1, c2, slope / c1)
