"""The data-dependent start of weight norm."""

import copy

import pytest
import torch
from torch import nn

import normkernels as nk

ours, theirs = nk.parametrizations.weight_norm, nn.utils.parametrizations.weight_norm


def net(**kwargs):
    """Two layers with weight norm."""
    return nn.Sequential(
        ours(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Flatten(), ours(nn.Linear(8 * 16, 5, **kwargs))
    ).double()  # fmt: skip


def test_data_dependent_init():
    """Every layer gives mean 0 and variance 1 on the batch."""
    model, batch = nk.init_weight_norm_(net(), x := torch.randn(64, 3, 6, 6, dtype=torch.float64) * 4 + 1), x
    found = []
    for layer in (model[0], model[3]):
        layer.register_forward_hook(lambda m, i, y: found.append(y))
    model(batch)
    for y in found:
        dims = [d for d in range(y.dim()) if d != 1]
        torch.testing.assert_close(y.mean(dims), torch.zeros_like(y.mean(dims)), atol=1e-12, rtol=0)
        torch.testing.assert_close(y.var(dims, correction=0), torch.ones_like(y.mean(dims)))


def test_data_dependent_init_without_bias():
    model = nk.init_weight_norm_(net(bias=False), batch := torch.randn(64, 3, 6, 6, dtype=torch.float64))
    torch.testing.assert_close(model(batch).var(0, correction=0), torch.ones(5, dtype=torch.float64))


REFUSED = {
    "one sample": (net, torch.randn(1, 3, 6, 6).double(), "batch must let every channel vary, got 3, which"),
    "transposed": (
        lambda: nn.Sequential(ours(nn.ConvTranspose1d(3, 3, 2))),
        torch.randn(4, 3, 5),
        "model must have weight norm along dim 0 of linear and convolution layers only, got 0: ParametrizedConvT",
    ),
    "twice": (
        lambda: nn.Sequential(layer := ours(nn.Linear(3, 3)), layer),
        torch.randn(4, 3),
        "model must call each layer once, got 0 called again",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_dependent_init_refuses(case):
    """With a sentence, and everything as it was."""
    make, batch, message = REFUSED[case]
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"^init_weight_norm_: {message}"):
        nk.init_weight_norm_(model, batch)
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
