"""The keyword-only extras that every activation normaliser takes, as module attributes."""

from typing import Any

import torch

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import check_name

DEFAULTS = {
    "activation": None, "slope": 0.01, "weight_offset": 0.0, "backend": None, "memory_format": torch.preserve_format,
}  # fmt: skip


def unusual(extras: dict[str, Any]) -> dict[str, Any]:
    """Those that are not the default: torch.compile guards each that a layer holds."""
    return {k: v for k, v in extras.items() if v != DEFAULTS[k]}


def extra(name: str) -> Any:
    """An attribute that lies among the extras, so that a call hands them over as they are."""

    def get(self) -> Any:
        return self.extras.get(name, DEFAULTS[name])

    def put(self, value: Any) -> None:
        self.extras = unusual({**self.extras, name: value})  # a shallow copy of the layer keeps its own

    return property(get, put)


class Extras:
    """Mixin: keeps the extras that are not the default, shows them, and hands them to the function."""

    activation: Activation | None = extra("activation")
    slope: float = extra("slope")
    backend: str | None = extra("backend")
    extras: dict[str, Any]

    def __init__(self, *arguments: Any, **extras: Any) -> None:
        """``arguments`` are those of the torch.nn twin, whose constructor may read the extras already."""
        name = type(self).__name__
        _checks.check_activation(name, extras["activation"])
        check_name(extras["backend"], name)
        self.extras = unusual(extras)
        super().__init__(*arguments)

    def extra_repr(self) -> str:
        shown = [f"{k}={v!r}" for k, v in unusual(self.extras).items()]
        return ", ".join(filter(None, [super().extra_repr(), *shown]))  # type: ignore[misc]
