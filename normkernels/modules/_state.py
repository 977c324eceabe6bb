"""What the modules that carry a state share: its first values, and that it can be started again."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.types import Device

from normkernels.modules._channels import Running
from normkernels.modules._ranks import Ranked


class Stateful(Ranked, Running):
    """State in buffers; see :meth:`reset_running_stats`."""

    num_features: int
    eps: float
    affine: bool
    _START: dict[str, float]  # buffer -> its first value

    def __init__(
        self, num_features: int, eps: float, affine: bool, bias: bool, device: Device, dtype: torch.dtype | None,
        **extras: Any,
    ) -> None:  # fmt: skip
        super().__init__(**extras)
        self.num_features, self.eps, self.affine, self._START = num_features, eps, affine, {}
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            data = torch.empty(num_features, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, None if data is None else torch.nn.Parameter(data))

    def _start(self, shape: tuple[int, ...], device: Device, dtype: torch.dtype | None, **starts: float) -> None:
        """Buffers of that shape, and their first values."""
        self._START = self._START | starts
        for name in starts:
            self.register_buffer(name, torch.empty(shape, device=device, dtype=dtype))

    @torch.no_grad()
    def _forget(self) -> None:
        for name, value in self._START.items():
            getattr(self, name).fill_(value)

    def reset_parameters(self) -> None:
        """Back to the first state, weight 1 and bias 0; what is frozen starts again too, and stays frozen."""
        self._forget()
        for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                torch.nn.init.constant_(parameter, value)

    def _statistics_move(self) -> bool:
        return self.training and not self.frozen_statistics

    def _shown(self) -> Iterable[str]:
        """The attributes that the layer shows, in this order."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        own = [str(self.num_features), *(f"{name}={getattr(self, name)!r}" for name in self._shown())]
        return ", ".join(filter(None, [*own, super().extra_repr()]))
