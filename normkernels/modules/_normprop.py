"""What NormProp layers share: parameters, their first values, and what is shown of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.types import Device

from normkernels import _checks
from normkernels._backends import check_name
from normkernels.moments import Moments, activation_moments
from normkernels.ops.normprop import callable_moments, check_activation

Activation = str | Callable[[Tensor], Tensor] | None


class NormProp(nn.Module):
    """What the layers share: parameters and their first values.

    Every call scales the filters anew: fused optimizers, ``.data`` and flat parameters change a weight without a trace,
    and to compare it with what it was costs what scaling costs. :func:`normkernels.fold_` scales once for inference.
    """

    weight: nn.Parameter
    gain: nn.Parameter
    bias: nn.Parameter | None
    slope: nn.Parameter | float | None
    moments: Moments | None
    activation: Activation
    gain_init: str | float
    slope_init: float | None
    backend: str | None

    if TYPE_CHECKING:  # torch.nn.Module's says nothing of what it takes and returns

        def __call__(self, input: Tensor) -> Tensor: ...

    def _set_up(
        self, shape: tuple[int, ...], activation: Activation, gain_init: str | float, bias: bool,
        slope: float | None, num_parameters: int, device: Device,
        dtype: torch.dtype | None, backend: str | None,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        if gain_init != "jacobian" and not isinstance(gain_init, int | float):
            _checks.fail(name, "gain_init", "be 'jacobian' or a number", repr(gain_init))
        if num_parameters not in (1, shape[0]):
            _checks.fail(name, "num_parameters", f"be 1 or the number of filters, {shape[0]}", num_parameters)
        check_activation(name, activation, torch.empty(0) if activation == "prelu" else None)
        self.backend = check_name(backend, name)
        self.activation, self.gain_init, self.slope_init = activation, gain_init, slope
        self.moments = callable_moments(activation) if callable(activation) else None
        made = {"device": device, "dtype": dtype}
        self.weight, self.gain = nn.Parameter(torch.empty(shape, **made)), nn.Parameter(torch.empty(shape[0], **made))
        self.register_parameter("bias", nn.Parameter(torch.empty(shape[0], **made)) if bias else None)
        self.slope = nn.Parameter(torch.empty(num_parameters, **made)) if activation == "prelu" else slope
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight Glorot-uniform, bias 0, gain 1 / jacobian_factor of the activation (or ``gain_init``)."""
        nn.init.xavier_uniform_(self.weight)
        moments = self.moments or activation_moments(self.activation, self.slope_init)
        nn.init.constant_(
            self.gain, 1 / moments.jacobian_factor if self.gain_init == "jacobian" else float(self.gain_init)
        )
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if isinstance(self.slope, nn.Parameter):
            nn.init.constant_(self.slope, 0.25 if self.slope_init is None else self.slope_init)

    def _shown(self) -> str:
        shown = [f"activation={getattr(self.activation, '__name__', repr(self.activation))}"]
        shown += [f"slope={self.slope}"] if isinstance(self.slope, float) else []
        shown += [f"num_parameters={self.slope.numel()}"] if isinstance(self.slope, nn.Parameter) else []
        shown += [f"gain_init={self.gain_init!r}"] if self.gain_init != "jacobian" else []
        shown += ["bias=False"] if self.bias is None else []
        return ", ".join(shown + ([f"backend={self.backend!r}"] if self.backend else []))
