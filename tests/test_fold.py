"""fold_: the same function in plain layers, with constants folded where that is exact and left where it is not."""

import copy

import pytest
import torch
from torch import nn

import normkernels as nk
from normkernels import ACTIVATIONS
from normkernels._folding import Affine

Conv, Linear = nk.NormPropConv2d, nk.NormPropLinear


def prepared(model):
    """In float64, with gains and biases that are no constants."""
    model = model.double()
    for p in model.parameters():
        if p.dim() == 1 and p.numel() > 1:
            nn.init.normal_(p)
    return model


def check(model, x, affines):
    """Folding keeps the outputs, leaves no NormProp layer and so many affines."""
    model = prepared(model)
    want = model(x)
    assert nk.fold_(model) is model
    torch.testing.assert_close(model(x), want, rtol=1e-11, atol=1e-11)
    assert not [m for m in model.modules() if isinstance(m, Conv | Linear)]
    assert len([m for m in model.modules() if isinstance(m, Affine)]) == affines
    assert torch.equal(copy.deepcopy(model)(x), model(x))


IMAGE = torch.randn(2, 3, 12, 12, dtype=torch.float64)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "prelu", None, torch.sin])
def test_a_chain(activation):
    """Padding, pooling, groups, nested Sequentials, flattening: everything folds."""
    if callable(activation):
        pytest.importorskip("scipy")
    make = {"activation": activation}
    model = nn.Sequential(
        Conv(3, 8, 5, padding=2, **make),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Sequential(Conv(8, 6, 3, padding="same", groups=2, **make), nn.Dropout(0.0)),
        nn.AvgPool2d(3, 3, padding=1, count_include_pad=False),
        Conv(6, 4, (1, 2), stride=2, bias=False, **make),
        nn.Flatten(),
        Linear(4, 7, **make),
        nn.Linear(7, 3, bias=False),
    )
    check(model, IMAGE, 0)


LEFT = {
    "last": (lambda: nn.Sequential(Conv(3, 4, 3)), 1),
    "last-identity": (lambda: nn.Sequential(Conv(3, 4, 3, activation=None)), 0),
    "counted zeros": (lambda: nn.Sequential(Conv(3, 4, 3), nn.AvgPool2d(3, padding=1), nn.Conv2d(4, 2, 1)), 1),
    "unknown": (lambda: nn.Sequential(Conv(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 1)), 1),
    "slopes": (
        lambda: nn.Sequential(Conv(3, 4, 3, activation="prelu", num_parameters=4), nn.Conv2d(4, 2, 3, padding=1)),
        1,
    ),
    "slopes-unpadded": (
        lambda: nn.Sequential(Conv(3, 4, 3, activation="prelu", num_parameters=4), nn.Conv2d(4, 2, 3)),
        0,
    ),
    "slopes-flat": (
        lambda: nn.Sequential(
            Conv(3, 4, 12, activation="prelu", num_parameters=4), nn.Flatten(), nn.Linear(4, 2)
        ),
        1,
    ),
    "slopes-unflattened": (
        lambda: nn.Sequential(
            nn.Flatten(),
            Linear(432, 8, activation="prelu", num_parameters=8),
            nn.Unflatten(1, (2, 4)),
            nn.Conv1d(2, 2, 1),
        ),
        1,
    ),
    "reflected": (lambda: nn.Sequential(Conv(3, 4, 3), nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect")), 0),
    "parametrized": (
        lambda: nn.Sequential(Conv(3, 4, 3), nk.parametrizations.weight_norm(nn.Conv2d(4, 2, 3))),
        1,
    ),
    "circular": (lambda: nn.Sequential(Conv(3, 4, 3, padding=1, padding_mode="circular"), Conv(4, 2, 3, padding=1)), 1),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_stays(case):
    make, affines = LEFT[case]
    check(make(), IMAGE, affines)


def test_outside_a_sequential():
    """Each layer for itself."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.rest = Conv(3, 4, 3), nn.Sequential(Conv(4, 4, 3), nn.Conv2d(4, 2, 1))

        def forward(self, x):
            y = self.first(x)
            return self.rest(y - y.mean())

    check(Net(), IMAGE, 1)


def test_a_layer_that_occurs_twice():
    layer = Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    with pytest.raises(ValueError, match=r"^fold_: model must have each layer once, got one that occurs twice$"):
        nk.fold_(model)
    assert model[0] is layer
