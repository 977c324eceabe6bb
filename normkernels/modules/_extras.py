"""The keyword-only extras that every activation normaliser takes, as module attributes."""

from typing import Any

import torch

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._backends import check_name
from normkernels.modules._one_call import say

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


def say_again(module: Any) -> None:
    """What a module's forward reads, after that has changed; nothing while it is traced, which would not see it."""
    if isinstance(module, Extras):
        vars(module)["_said"] = None if torch.compiler.is_compiling() else say(module)


class Extras:
    """Mixin: keeps the extras that are not the default, shows them, and hands them to the function."""

    activation: Activation | None = extra("activation")
    slope: float = extra("slope")
    backend: str | None = extra("backend")
    extras: dict[str, Any]
    SAID: tuple[str, ...] = ()  # the attributes that its forward reads, if Dynamo need not look into it
    _said: str | None = None  # these, and which tensors are read, in one string

    def __init__(self, *arguments: Any, **extras: Any) -> None:
        """``arguments`` are those of the torch.nn twin, whose constructor may read the extras already."""
        name = type(self).__name__
        _checks.check_activation(name, extras["activation"])
        check_name(extras["backend"], name)
        self.extras = unusual(extras)
        super().__init__(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "__class__" or name in self.SAID:
            say_again(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        say_again(self)

    def tensors_read(self) -> list[str]:
        """The names of the tensors that its forward reads."""
        return ["weight", "bias"]

    def extra_repr(self) -> str:
        shown = [f"{k}={v!r}" for k, v in unusual(self.extras).items()]
        return ", ".join(filter(None, [super().extra_repr(), *shown]))  # type: ignore[misc]
