"""Products with all rows at once: torch's two libraries give the same, to rounding."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import normkernels as nk
from normkernels.ops._products import FEW_ROWS, linear, weight_gradient

CUT = FEW_ROWS, 40 * 35, 61 * 64  # rows that a convolution takes
WHOLE = FEW_ROWS - 1, 1031, 1087  # too few, or nothing divides them


class Seen(TorchDispatchMode):
    """The names of the ops that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("rows", CUT + WHOLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_right(rows, dtype):
    """Against float64, forward, backward and the gradient of the gradient."""
    generator = torch.Generator().manual_seed(rows)
    x, weight, dy = (torch.randn(s, generator=generator).to(dtype) for s in ((rows, 24), (40, 24), (rows, 40)))

    def found(product, x, weight, dy):
        x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = product(x, weight)
        first = torch.autograd.grad(y, (x, weight), dy, create_graph=True)
        return y, *first, *torch.autograd.grad(first[0].sum() + first[1].square().sum(), (x, weight))

    expected = found(F.linear, x.double(), weight.double(), dy.double())
    with Seen() as seen:
        ours = [*found(linear, x, weight, dy), weight_gradient(dy, x)]
    for a, b in zip(ours, [*expected, expected[2]], strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        scale = float(b.detach().abs().max())
        off = float((a.double() - b).detach().abs().max())
        assert off <= 32 * torch.finfo(dtype).eps * max(scale, 1)  # of sums over thousands of rows, as torch takes them
    assert ("convolution" in seen.names) == (rows in CUT and dtype == torch.float32)


@pytest.mark.parametrize("shape", [(64, 20, 24), (16, 71, 24), (1400, 24)])
def test_any_shape(shape):
    """Rows in steps and batches, transposed ones too, come back in the shape of theirs."""
    x, weight = torch.randn(shape), torch.randn(40, 24)
    for given in (x, x.transpose(0, -2) if x.dim() > 2 else x.t().contiguous().t()):
        right, size = F.linear(given.double(), weight.double()), F.linear(given.abs(), weight.abs())
        found = linear(given, weight)
        assert found.shape == right.shape
        assert (
            (found - right).abs() <= 24 * torch.finfo(torch.float32).eps * size
        ).all()  # as many terms, in any order


@pytest.mark.parametrize(
    "norm", [nk.LayerNormRNN, nk.LayerNormGRU, nk.LayerNormLSTM, nk.BatchNormRNN, nk.BatchNormLSTM]
)
def test_layers(norm):
    """A long sequence in float32 against the same layer in float64: outputs and the gradients of all parameters."""
    torch.manual_seed(0)
    layer, x = norm(12, 8, bidirectional=True), torch.randn(64, 16, 12)
    wide = norm(12, 8, bidirectional=True).double()
    wide.load_state_dict(layer.state_dict())
    y, z = layer(x)[0], wide(x.double())[0]
    torch.testing.assert_close(y.double(), z, rtol=1e-4, atol=1e-4)
    dy = torch.randn_like(y)
    grads = torch.autograd.grad(y, list(layer.parameters()), dy)
    for a, b in zip(grads, torch.autograd.grad(z, list(wide.parameters()), dy.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
