"""What the modules of the channel family share: their extras, and freezing."""

from typing import Self

import torch
from torch import Tensor

from normkernels.modules._extras import Extras


class ChannelExtras(Extras, torch.nn.Module):
    """The extras of a norm over channels: ``activation``, ``slope`` and ``backend``; ``skip`` is given to forward."""

    EXTRAS = ("activation", "slope", "backend")

    def drop_bias(self, drop: bool) -> None:
        """``bias=False`` of torch's later releases, on all of them."""
        if drop:
            self.register_parameter("bias", None)


class Running(ChannelExtras):
    """Running statistics that can be frozen, whatever ``train()`` says later."""

    running_mean: Tensor | None
    weight: torch.nn.Parameter | None
    bias: torch.nn.Parameter | None
    frozen_statistics: bool = False

    def freeze(self, statistics: bool = True, affine: bool = True) -> Self:
        """Freeze the statistics (the running ones are used and kept, as in ``eval()``), weight and bias, or both.

        Neither is undone by ``train()``; ``unfreeze()`` undoes both. Raises ValueError if there are no running
        statistics to freeze. Returns self.
        """
        if statistics and self.running_mean is None:
            raise ValueError(f"{type(self).__name__}.freeze: statistics must be running ones, got none to freeze")
        self.frozen_statistics = self.frozen_statistics or statistics
        if affine:
            self._require_grad(False)
        return self

    def unfreeze(self) -> Self:
        """Undo :meth:`freeze`: statistics follow ``train()`` and ``eval()`` again, weight and bias get gradients."""
        self.frozen_statistics = False
        self._require_grad(True)
        return self

    def _require_grad(self, wanted: bool) -> None:
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter.requires_grad_(wanted)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", frozen_statistics=True" if self.frozen_statistics else "")
