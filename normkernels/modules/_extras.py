"""The keyword-only extras that every activation normaliser takes, as module attributes."""

from normkernels.backends import check_name
from normkernels.ops import _checks

DEFAULTS = {"activation": None, "slope": 0.01, "weight_offset": 0.0, "backend": None}


class Extras:
    """Mixin: keeps the extras, shows those that are not the default, and hands them to the function."""

    activation: str | None
    slope: float
    weight_offset: float
    backend: str | None
    EXTRAS: tuple[str, ...] = tuple(DEFAULTS)

    def set_extras(self, **extras) -> None:
        name = type(self).__name__
        _checks.check_activation(name, extras["activation"])
        check_name(extras["backend"], name)
        for key, value in extras.items():
            setattr(self, key, value)

    def extras(self) -> dict:
        return {key: getattr(self, key) for key in self.EXTRAS}

    def extra_repr(self) -> str:
        shown = [f"{k}={v!r}" for k, v in self.extras().items() if v != getattr(type(self), k, DEFAULTS.get(k))]
        return ", ".join([super().extra_repr(), *shown])  # type: ignore[misc]
