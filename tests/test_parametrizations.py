"""Weight norm and weight standardisation as parametrizations of a layer."""

import copy
import pickle
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import normkernels as nk

ours, theirs = nk.parametrizations.weight_norm, nn.utils.parametrizations.weight_norm
LAYERS = [
    pytest.param(lambda: nn.Linear(4, 3), (5, 4), id="linear"),
    pytest.param(lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5), id="conv"),
    pytest.param(lambda: nn.ConvTranspose1d(4, 3, 5), (2, 4, 7), id="transposed"),
]


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_parametrization_is_torchs(layer, shape, dim):
    """The same keys, shapes and values as torch's own; checkpoints move both ways."""
    torch.manual_seed(0)
    a = ours(layer(), dim=dim)
    torch.manual_seed(0)
    b = theirs(layer(), dim=dim)
    x = torch.randn(shape)
    assert a.state_dict().keys() == b.state_dict().keys()
    torch.testing.assert_close(dict(a.state_dict()), dict(b.state_dict()))
    torch.testing.assert_close(a(x), b(x))
    with torch.no_grad():
        for p in a.parameters():
            p.add_(torch.randn_like(p))
    b.load_state_dict(a.state_dict())
    torch.testing.assert_close(a(x), b(x))


def test_double_backward_through_the_parametrization():
    layer, x = ours(nn.Linear(3, 2)).double(), torch.randn(4, 3, dtype=torch.float64)
    grads = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()), create_graph=True)
    torch.autograd.grad(sum(g.square().sum() for g in grads), list(layer.parameters()))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_checkpoints():
    """weight_g and weight_v of torch.nn.utils.weight_norm."""
    old, new = nn.utils.weight_norm(nn.Conv1d(4, 3, 5)), ours(nn.Conv1d(4, 3, 5))
    new.load_state_dict(old.state_dict())
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(new(x), old(x))


@pytest.mark.parametrize("kind", ["weight_norm", "weight_standardization"])
def test_parametrized_modules(kind):
    """Copies, 16 bits, caching, and taking it off again."""
    layer = getattr(nk.parametrizations, kind)(nn.Linear(6, 4))
    x = torch.randn(3, 6)
    y = layer(x)
    torch.testing.assert_close(copy.deepcopy(layer)(x), y)
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    layer = layer.float()
    with parametrize.cached():
        assert layer.weight is layer.weight
    want = layer.weight.detach().clone()
    parametrize.remove_parametrizations(layer, "weight")
    torch.testing.assert_close(layer.weight.detach(), want)
    pickle.dumps(layer)


def test_standardised_filters():
    """Mean 0 and variance 1, times the gain; the gain is learnt."""
    layer = nk.parametrizations.weight_standardization(nn.Conv2d(3, 4, 3), gain=0.5, eps=0.0)
    w = layer.weight.flatten(1)
    torch.testing.assert_close(w.mean(1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(w.std(1, correction=0), torch.full((4,), 0.5))
    layer(torch.randn(1, 3, 5, 5)).sum().backward()
    assert layer.parametrizations["weight"][0].gain.grad is not None
    assert "gain" not in dict(nk.parametrizations.weight_standardization(nn.Linear(3, 2)).named_parameters())


class Numbers(nn.Module):
    """Parameters that no filter can be made of."""

    def __init__(self):
        super().__init__()
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.integers = nn.Parameter(torch.ones(3, 2, dtype=torch.int8), requires_grad=False)
        self.complex = nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))
        self.register_parameter("nothing", None)
        self.register_buffer("buffer", torch.ones(3, 2))
        self.attribute = torch.ones(3, 2)


MISUSE = {
    "no such name": (lambda: nn.Linear(3, 2), "wieght", "name must be that of a parameter of Linear, got 'wieght'"),
    "no bias": (lambda: nn.Linear(3, 2, bias=False), "bias", "name must be that of a parameter of Linear, got 'bias'"),
    "none": (Numbers, "nothing", "name must be that of a parameter of Numbers, got 'nothing'"),
    "a method": (Numbers, "forward", "name must be that of a parameter of Numbers, got 'forward'"),
    "a buffer": (Numbers, "buffer", "name must be that of a parameter of Numbers, got 'buffer'"),
    "an attribute": (Numbers, "attribute", "name must be that of a parameter of Numbers, got 'attribute'"),
    "of a child": (lambda: nn.Sequential(nn.Linear(3, 2)), "0.weight", "name must be that of a parameter of Seq"),
    "a scalar": (Numbers, "scalar", "scalar must have at least one dimension, got a scalar"),
    "integers": (Numbers, "integers", "integers must be float64, float32, bfloat16 or float16, got torch.int8"),
    "complex": (Numbers, "complex", "complex must be float64, float32, bfloat16 or float16, got torch.complex64"),
    "lazy": (lambda: nn.LazyLinear(3), "weight", "module must have its parameters"),
}
TWICE = {
    "weight_norm": "name must be that of a parameter without parametrizations, got 'weight'",
    "weight_standardization": "name must be that of a parameter that is not standardised yet, got 'weight'",
}


def refused(kind, module, message, *args, **kwargs):
    """With a sentence that starts so, and the module as it was."""
    before = dict(module.named_parameters()), type(module), len(module._load_state_dict_pre_hooks)
    with pytest.raises(ValueError, match=f"^{kind}: {re.escape(message)}"):
        getattr(nk.parametrizations, kind)(module, *args, **kwargs)
    after = dict(module.named_parameters()), type(module), len(module._load_state_dict_pre_hooks)
    assert after[1:] == before[1:]
    assert list(after[0]) == list(before[0])
    assert all(a is b for a, b in zip(after[0].values(), before[0].values(), strict=True))


@pytest.mark.parametrize("kind", TWICE)
@pytest.mark.parametrize("wrong", MISUSE)
def test_misuse(kind, wrong):
    """Refused at once: a parametrization that cannot be computed would break every forward."""
    make, name, message = MISUSE[wrong]
    refused(kind, make(), message, name)


@pytest.mark.parametrize("kind", TWICE)
def test_a_second_time(kind):
    """The same one again; weight norm over anything: it has two tensors to start from, the one before gives one."""
    layer, x = getattr(nk.parametrizations, kind)(nn.Linear(3, 2)), torch.randn(4, 3)
    y = layer(x)
    refused(kind, layer, TWICE[kind])
    assert torch.equal(layer(x), y)
    refused("weight_norm", layer, TWICE["weight_norm"])
    refused("weight_norm", nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)), TWICE["weight_norm"])


def test_standardised_after_weight_norm():
    """One follows the other."""
    layer = nk.parametrizations.weight_standardization(ours(nn.Linear(5, 2)), eps=0.0)
    layer(torch.randn(4, 5)).sum().backward()
    torch.testing.assert_close(layer.weight.std(1, correction=0), torch.ones(2))


@pytest.mark.parametrize("dim", [2, -2, 0.5, "0"])
def test_wrong_dims_of_a_parametrization(dim):
    refused("weight_norm", nn.Linear(3, 2), f"dim must be None or an int in [-1, 2), got {dim}", dim=dim)
