"""What the modules of the channel family share: their extras, and freezing."""

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from normkernels.modules._extras import Extras
from normkernels.modules._wide_state import WideState


class ChannelExtras(Extras, torch.nn.Module):
    """The extras of a norm over channels: ``activation``, ``slope`` and ``backend``; ``skip`` is given to forward."""

    def __init__(self, *arguments: Any, bias: bool = True, **extras: Any) -> None:
        super().__init__(*arguments, **extras)
        if not bias:  # the torch.nn twins of later releases take it, those of older ones do not
            self.register_parameter("bias", None)

    if TYPE_CHECKING:  # torch.nn.Module's says nothing of what it takes and returns

        def __call__(self, input: Tensor, skip: Tensor | None = None) -> Tensor: ...


class Running(WideState, ChannelExtras):
    """Running statistics that can be frozen, whatever ``train()`` says later.

    What is frozen is said in the metadata of a state_dict, not in a key: torch.nn's layers would not know the key.
    """

    running_mean: Tensor | None
    weight: torch.nn.Parameter | None
    bias: torch.nn.Parameter | None
    frozen_statistics: bool = False
    frozen_affine: bool = False

    def freeze(self, statistics: bool = True, affine: bool = True) -> Self:
        """Freeze the statistics (the running ones are used and kept, as in ``eval()``), weight and bias, or both.

        Neither is undone by ``train()`` or ``reset_running_stats()``, and a state_dict with its metadata (as torch.save
        keeps it) freezes the layer that loads it; ``unfreeze()`` undoes both. Raises ValueError if there are no running
        statistics to freeze. Returns self.
        """
        if statistics and self.running_mean is None:
            raise ValueError(f"{type(self).__name__}.freeze: statistics must be running ones, got none to freeze")
        self.frozen_statistics = self.frozen_statistics or statistics
        self.frozen_affine = self.frozen_affine or affine
        if affine:
            self._require_grad(False)
        return self

    def unfreeze(self) -> Self:
        """Undo :meth:`freeze`: statistics follow ``train()`` and ``eval()`` again, weight and bias get gradients."""
        self.frozen_statistics = self.frozen_affine = False
        self._require_grad(True)
        return self

    def _require_grad(self, wanted: bool) -> None:
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter.requires_grad_(wanted)

    def reset_running_stats(self) -> None:
        """Back to the first state, unless it is frozen."""
        if not self.frozen_statistics:
            self._forget()

    def _forget(self) -> None:
        super().reset_running_stats()  # type: ignore[misc]

    def reset_parameters(self) -> None:
        """Back to the first state, weight 1 and bias 0; what is frozen starts again too, and stays frozen."""
        if self.frozen_statistics:
            self._forget()
        super().reset_parameters()  # type: ignore[misc]

    def _save_to_state_dict(self, destination, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        frozen = ["statistics"] if self.frozen_statistics else []
        if self.frozen_affine and not any(p.requires_grad for p in self._parameters.values() if p is not None):
            frozen.append("affine")
        if frozen and hasattr(destination, "_metadata"):
            destination._metadata.setdefault(prefix[:-1], {})["frozen"] = frozen

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        """A layer that is frozen stays so, whatever it loads."""
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        frozen = local_metadata.get("frozen", ())
        self.freeze("statistics" in frozen and self.running_mean is not None, "affine" in frozen)

    def extra_repr(self) -> str:
        shown = [super().extra_repr(), "frozen_statistics=True" if self.frozen_statistics else ""]
        return ", ".join(filter(None, shown))


class Twin(Running):
    """A subclass of a torch.nn layer, which others may take for its parent.

    Who puts a plain layer in place of this one (``torch.nn.SyncBatchNorm.convert_sync_batchnorm``,
    ``torch.nn.utils.fusion``, libraries that freeze a net) drops an activation, and that statistics are frozen. All of
    them read ``eps``: so it is for others only where nothing is lost, and else raises RuntimeError with the reason.
    """

    @property
    def eps(self) -> float:
        """Added to the variance; for others, see above."""
        if self.activation is not None:
            lost, before = f"activation={self.activation!r}", "make it a module of its own"
        elif self.frozen_statistics:
            lost, before = "frozen_statistics=True", "call unfreeze()"
        else:
            return self.__dict__["eps"]
        name = type(self).__name__
        raise RuntimeError(f"{name}: a plain layer with this eps would not have {lost}; {before} first")

    @eps.setter
    def eps(self, eps: float) -> None:
        self.__dict__["eps"] = eps
