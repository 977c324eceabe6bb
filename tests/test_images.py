"""Group norm with a weight and a bias of each image: adaptive group norm, FiLM, AdaIN."""

import copy

import pytest
import torch
import torch.nn.functional as F
from common import ScaledAndShifted, need
from torch.utils._python_dispatch import TorchDispatchMode

import normkernels as nk
from normkernels.cases import OPS
from normkernels.cases._channels import last
from normkernels.functional import group_norm

BACKENDS = ["native", "reference"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def adapted(norm, x, skip=None, scale=None, shift=None):
    """As diffusers and FiLM write it."""
    u = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, vars(norm)["eps"])
    u = u if scale is None else u * (1 + scale[:, :, None, None])
    u = u if shift is None else u + shift[:, :, None, None]
    return F.silu(u if skip is None else u + skip)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, last], ids=["planes", "channels_last"])
@pytest.mark.parametrize("given", [("scale", "shift"), ("scale",), ("shift",), ("skip", "scale", "shift")], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_scale_and_shift_of_the_module(backend, layout, given, affine):
    need(OPS["group_norm"], backend, "cpu")
    norm = nk.GroupNorm(3, 12, affine=affine, activation="silu", backend=backend, dtype=torch.float64)
    for i, p in enumerate(norm.parameters()):
        p.data = draw(12, seed=i)
    sizes = {"skip": (4, 12, 3, 5), "scale": (4, 12), "shift": (4, 12)}
    tensors = {k: draw(*sizes[k], seed=i).requires_grad_() for i, k in enumerate(given, 2)}
    x, dy = layout(draw(4, 12, 3, 5, seed=9)).requires_grad_(), layout(draw(4, 12, 3, 5, seed=8))
    wanted = [x, *tensors.values(), *norm.parameters()]
    y, expected = norm(x, **tensors), adapted(norm, x, **tensors)
    torch.testing.assert_close(y, expected)
    assert y.stride() == x.stride()
    found = torch.autograd.grad(y, wanted, dy, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, wanted, dy))


class Calls(TorchDispatchMode):
    """The ops that ran, by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("layout", "calls"), [(torch.Tensor.contiguous, 1), (last, 4)], ids=["planes", "channels_last"]
)
def test_nothing_of_the_size_of_input_is_copied(layout, calls):
    need(OPS["group_norm"], "native", "cpu")
    x, table = layout(draw(4, 12, 3, 5)), draw(4, 12)
    with Calls() as seen:
        group_norm(x, 3, table, table, activation="silu", backend="native")
    assert sum("group_norm_fwd" in name for name in seen.names) == calls
    assert not [name for name in seen.names if name.split(".")[1] in ("copy_", "clone", "mul", "add")]


def test_an_image_has_what_it_has_alone():
    need(OPS["group_norm"], "native", "cpu")
    x, w, b = draw(5, 12, 4, 4).float(), draw(5, 12, seed=1).float(), draw(5, 12, seed=2).float()
    whole = group_norm(x, 4, w, b, backend="native")
    for n in range(5):
        torch.testing.assert_close(group_norm(x[n : n + 1], 4, w[n], b[n], backend="native")[0], whole[n])


def test_adaptive_instance_norm():
    x, style = draw(3, 6, 4, 5), draw(3, 6, 7, seed=1)
    y = group_norm(x, 6, style.std(2), style.mean(2), eps=1e-10)
    torch.testing.assert_close(y.mean((2, 3)), style.mean(2))
    torch.testing.assert_close(y.flatten(2).std(2, correction=0), style.std(2))


def test_a_skip_alone():
    need(OPS["group_norm"], "native", "cpu")
    x, skip, dy = (draw(2, 4, 3, 3, seed=i).requires_grad_() for i in range(3))
    group_norm(x, 2, draw(2, 4), skip=skip, backend="native").backward(dy)
    assert skip.grad is not None
    assert torch.equal(skip.grad, dy)


def test_no_images():
    w = torch.ones(0, 6, requires_grad=True)
    y = group_norm(torch.empty(0, 6, 3, requires_grad=True), 2, w)
    y.sum().backward()
    assert y.shape == (0, 6, 3)
    assert w.grad is not None
    assert w.grad.shape == (0, 6)


def test_16_bit_images_beside_tables_in_float32():
    norm = nk.GroupNorm(3, 12, activation="silu")
    x, t = draw(4, 12, 3, 5), draw(4, 12, seed=1).float()
    y = norm(x.bfloat16(), scale=t, shift=t)
    assert y.dtype == torch.bfloat16
    exact = adapted(copy.deepcopy(norm).double(), x.bfloat16().double(), None, t.double(), t.double())
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=2**-8)


def test_compiled_and_traced():
    norm, x, t = nk.GroupNorm(3, 12).double(), draw(4, 12, 3, 5), draw(4, 12, seed=1)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, None, t, t), norm(x, None, t, t))

    torch.testing.assert_close(torch.fx.symbolic_trace(ScaledAndShifted(norm))(x, t), norm(x, None, t, t))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, t: group_norm(x, 3, t[:3]), r"group_norm: weight must have shape \(12,\), got \(3, 12\)"),
        (lambda x, t: group_norm(x, 3, t, t[0]), r"group_norm: bias must have shape \(4, 12\), got \(12,\)"),
        (lambda x, t: group_norm(x, 3, t[0], t), r"group_norm: weight must have shape \(4, 12\), got \(12,\)"),
        (lambda x, t: group_norm(x, 5, t), "num_groups must divide the 12 channels"),
        (lambda x, t: nk.GroupNorm(3, 12)(x, scale=t[0]), r"GroupNorm: scale must have shape \(4, 12\), got \(12,\)"),
        (lambda x, t: nk.GroupNorm(3, 12)(x, shift=2.0), r"GroupNorm: shift must have shape \(4, 12\), got float"),
    ],
)
def test_wrong_tables(call, message):
    with pytest.raises(ValueError, match=message):
        call(draw(4, 12, 3, 5).float(), draw(4, 12).float())
