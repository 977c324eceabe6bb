"""A layer's string for Dynamo says all that its forward reads, as found by watching calls, and nothing that none reads.

What a forward reads and no string says has no guard: a compiled call would go on with what the class has by default.
"""

import contextlib
import inspect
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from normkernels.modules import _one_call
from normkernels.modules._extras import Extras
from tests.test_one_call import image, made

HOLDS = {"_parameters", "_buffers"}  # what lies in these has names of its own


def below(kind: type) -> Iterator[type]:
    for other in kind.__subclasses__():
        yield from (other, *below(other))


def one_call(kind: type) -> bool:
    ours = kind.__module__.startswith("normkernels.") and not kind.__name__.startswith("_")
    named = ours and _one_call._kind(kind.__module__, kind.__qualname__) is kind
    return named and hasattr(getattr(kind, "forward", None), "_torchdynamo_inline")


KINDS = list(dict.fromkeys(filter(one_call, below(Extras))))


class Attributes(dict):
    """A module's, which write down what is asked of them."""

    read: set[str]

    def __getitem__(self, name: str):
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default=None):
        self.read.add(name)
        return super().get(name, default)


def watched(kind: type[nn.Module], read: set[str], tensors: set[str]) -> type[nn.Module]:
    """A class whose modules, and what stands in for them, write down which attributes and tensors are read of them."""

    def get(self, name: str):
        try:
            value = object.__getattribute__(self, name)
        except AttributeError:  # torch.nn.Module looks among its tensors
            tensors.add(name)
            raise
        if name == "__dict__":
            value = Attributes(value)
            value.read = read
        elif name in object.__getattribute__(self, "__dict__") or not of_the_class(kind, name):
            read.add(name)
        return value

    return type(kind.__name__, (kind,), {"__getattribute__": get})


def of_the_class(kind: type[nn.Module], name: str) -> bool:
    """Whether all its modules share it: functions, properties (what one reads is written down), constants."""
    return name.isupper() or name.startswith("__") or hasattr(inspect.getattr_static(kind, name), "__get__")


def layers(kind: type[nn.Module]) -> Iterator[nn.Module]:
    """With every switch of the constructor the other way, in either mode, frozen, in 16 bits."""
    switches = {p.name: not p.default for p in inspect.signature(kind).parameters.values() if type(p.default) is bool}
    numbers = {"momentum": None} if "momentum" in inspect.signature(kind).parameters else {}
    for name, value in [("eps", 0.1), *switches.items(), *numbers.items()]:
        for training in (True, False):
            yield made(kind, **{name: value}).train(training)
            yield made(kind, **{name: value}).train(training).bfloat16()
    if hasattr(kind, "freeze"):
        yield made(kind, track_running_stats=True).freeze()


def calls(kind: type[nn.Module]) -> Iterator[dict[str, Tensor]]:
    """With every optional tensor; of one image alone, and with other channels."""
    x = image(kind)
    yield {"input": x}
    yield {"input": x[0]}
    yield {"input": torch.cat([x, x], 1)}
    for name in list(inspect.signature(kind.forward).parameters)[2:-1]:
        yield {"input": x, name: torch.ones(x.shape[:2] if name in ("scale", "shift") else x.shape)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_all_that_is_read(kind):
    read: set[str] = set()
    for layer in layers(kind):
        for call in calls(kind):
            tensors: set[str] = set()
            object.__setattr__(layer, "__class__", watched(kind, read, tensors))  # a module's own reads
            with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
                kind.forward(layer, **call)  # what refuses a call reads too
            object.__setattr__(layer, "__class__", kind)
            if layer._said is not None:
                assert tensors & layer.state_dict().keys() <= set(layer.tensors_read())
    assert read - HOLDS == set(kind.SAID)
