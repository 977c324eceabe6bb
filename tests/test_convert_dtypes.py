"""Norms of other libraries with input in one dtype and weights in another or the same: after convert as before it."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

import normkernels as nk
from tests.test_convert import PEERS, used

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
PAIRS = list(itertools.product(DTYPES, DTYPES))


def outcome(module: nn.Module, x: Tensor) -> list[Tensor] | None:
    """Output and gradients; None where it takes no such input."""
    x = x.clone().requires_grad_()
    try:
        y = module(x)
    except (RuntimeError, ValueError):
        return None
    wanted = [x, *(p for p in module.parameters() if p.requires_grad)]
    return [y.detach(), *torch.autograd.grad(y.double().square().sum(), wanted)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("of_input", "of_weights"), PAIRS, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("norm", [p[0] for p in PEERS], ids=lambda m: type(m).__name__)
def test_every_dtype_of_weights(norm, of_input, of_weights):
    """What the norm takes, the converted one takes: the same dtypes, and numbers as near as the narrower one has."""
    shape = next(p[1] for p in PEERS if p[0] is norm)
    old = used(copy.deepcopy(norm)).to(of_weights)
    model = nn.Sequential(copy.deepcopy(old))
    assert nk.convert(model).changed
    x = torch.randn(shape).to(of_input)
    wanted, found = outcome(old, x), outcome(model, x)
    if wanted is None:
        return
    assert found is not None
    near = 32 * max(torch.finfo(t).eps for t in (of_input, of_weights, torch.float32))
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=near, atol=near * want.abs().max().item())


@pytest.mark.parametrize("norm", [p[0] for p in PEERS], ids=lambda m: type(m).__name__)
def test_traced_as_a_leaf(norm):
    """By torch.fx, whose proxies have no dtype to compare."""
    shape = next(p[1] for p in PEERS if p[0] is norm)
    model = nn.Sequential(used(copy.deepcopy(norm)))
    nk.convert(model)
    traced, x = torch.fx.symbolic_trace(model), torch.randn(shape)
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
    torch.testing.assert_close(traced(x), model(x))
