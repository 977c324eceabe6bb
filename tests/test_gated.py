"""Layer and RMS norm with a gate: u act(gate), as gated linear attention and Mamba-2 end a block."""

import copy

import pytest
import torch
import torch.nn.functional as F
from common import need
from test_images import Calls, draw

import normkernels as nk
from normkernels import ACTIVATIONS
from normkernels.cases import OPS
from normkernels.cases._rows import activate
from normkernels.functional import layer_norm, rms_norm

KINDS = [pytest.param(nk.LayerNorm, id="LayerNorm"), pytest.param(nk.RMSNorm, id="RMSNorm")]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_function = pytest.mark.parametrize("function", [layer_norm, rms_norm], ids=lambda f: f.__name__)
BIASED = {nk.LayerNorm: {}, nk.RMSNorm: {"bias": True}}


def formula(function, x, gate, weight=None, bias=None, residual=None, activation="silu", eps=1e-5):
    """y and s by torch's ops; weight and bias (N,), or one for each sample."""
    s = x if residual is None else x + residual
    u = (F.layer_norm if function is layer_norm else F.rms_norm)(s, s.shape[-1:], eps=eps)
    weight, bias = (t if t is None or t.dim() == 1 else t[:, None] for t in (weight, bias))
    u = u if weight is None else u * weight
    u = u if bias is None else u + bias
    return u * activate(gate, activation, 0.01), s


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("given", [(), ("residual",), ("scale", "shift"), ("residual", "scale", "shift")], ids=str)
@pytest.mark.parametrize("affine", [True, False])
@every_kind
def test_the_module(kind, backend, given, affine):
    need(OPS["layer_norm"], backend, "cpu")
    options = BIASED[kind] | {"weight_offset": 0.5, "activation": "silu", "backend": backend, "dtype": torch.float64}
    norm = kind(12, 1e-5, affine, **options)
    for i, p in enumerate(norm.parameters()):
        p.data = draw(12, seed=i)
    sizes = {"residual": (4, 5, 12), "scale": (4, 12), "shift": (4, 12)}
    tensors = {k: draw(*sizes[k], seed=i).requires_grad_() for i, k in enumerate(given, 2)}
    x, gate, dy = (draw(4, 5, 12, seed=i).requires_grad_() for i in (7, 8, 9))
    scale, shift = (tensors.get(k, torch.zeros(4, 12, dtype=x.dtype)) for k in ("scale", "shift"))
    weight, bias = (norm.weight + 0.5, norm.bias) if affine else (torch.ones(12).double(), torch.zeros(12).double())
    function = layer_norm if kind is nk.LayerNorm else rms_norm
    tables = weight * (1 + scale), bias * (1 + scale) + shift
    want, s = formula(function, x, gate, *tables, tensors.get("residual"))
    y = norm(x, **tensors, gate=gate)
    if "residual" in given:
        y, found = y
        assert torch.equal(found, s)
    torch.testing.assert_close(y, want)
    wanted = [x, gate, *tensors.values(), *norm.parameters()]
    found = torch.autograd.grad(y, wanted, dy, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(want, wanted, dy))


@every_function
def test_gradients_by_differences(function):
    def call(x, w, b, residual, gate):
        return function(x, 6, w, bias=b, eps=0.1, residual=residual, gate=gate, activation="silu", weight_offset=1.0)

    tensors = [draw(*size, seed=i).requires_grad_() for i, size in enumerate([(3, 2, 6), (6,), (6,), *[(3, 2, 6)] * 2])]
    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


# rows of every loop on the CPU: short, narrow, of 32 elements at a time, in tiles, and one that threads share
SHAPES = [(40, 2, 4), (5, 3, 33), (6, 7, 64), (7, 1, 96), (3, 4, 1024), (3, 4, 2080), (2, 3, 9000), (1, 1, 200_000)]
NEAR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_function
def test_native_kernels_in_float64(function, shape, dtype):
    """A gate that is half of a projection, each gradient with the others and, of the gate, without."""
    need(OPS["layer_norm"], "native", "cpu")
    N = shape[-1]
    x, dy = (draw(*shape, seed=i).to(dtype).requires_grad_() for i in (0, 1))
    gate = draw(*shape[:-1], 2 * N, seed=2).to(dtype)[..., N:].requires_grad_()
    w, b = (draw(N, seed=i).to(dtype).requires_grad_() for i in (3, 4))
    y = function(x, N, w, bias=b, eps=1e-5, gate=gate, activation="silu", backend="native")
    exact = [t.detach().double().requires_grad_() for t in (x, gate, w, b)]
    want, _ = formula(function, *exact)
    found, wanted = torch.autograd.grad(y, (x, gate, w, b), dy), torch.autograd.grad(want, exact, dy.double())
    shut = function(x, N, w, bias=b, eps=1e-5, gate=gate.detach(), activation="silu", backend="native")
    (alone,) = torch.autograd.grad(shut, x, dy)
    for one, other in zip([y, *found, alone], [want, *wanted, wanted[0]], strict=True):
        off = (one.double() - other).abs().max()
        assert off <= NEAR[dtype] * other.abs().max(), float(off)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_opens_a_gate(activation):
    need(OPS["layer_norm"], "native", "cpu")
    x, gate, dy = (draw(6, 40, seed=i).requires_grad_() for i in range(3))
    want, _ = formula(rms_norm, x, gate, activation=activation)
    y = rms_norm(x, 40, eps=1e-5, gate=gate, activation=activation, backend="native")
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(*(torch.autograd.grad(t, (x, gate), dy) for t in (y, want)))


@every_function
def test_without_an_activation_a_gate_multiplies(function):
    x, gate = draw(6, 40), draw(6, 40, seed=1)
    torch.testing.assert_close(function(x, 40, eps=1e-5, gate=gate), function(x, 40, eps=1e-5) * gate)


@every_function
def test_one_kernel_and_no_copies(function):
    """Of a gate that is half of a projection neither."""
    need(OPS["layer_norm"], "native", "cpu")
    x, projection = draw(20, 12), draw(20, 24, seed=1)
    with Calls() as seen, torch.no_grad():
        function(x, 12, gate=projection[:, 12:], activation="silu", backend="native")
    names = [name.split(".")[1] for name in seen.names]
    assert sum(name.endswith("norm_fwd") for name in names) == 1
    assert not {"copy_", "clone", "mul", "silu"} & set(names)


@every_function
def test_a_residual_in_a_wider_dtype(function):
    x, gate, residual = draw(6, 40).bfloat16(), draw(6, 40, seed=1).bfloat16(), draw(6, 40, seed=2).float()
    y, s = function(x, 40, eps=1e-5, residual=residual, gate=gate, activation="silu")
    assert y.dtype == s.dtype == torch.float32
    want, _ = formula(function, *(t.double() for t in (x, gate)), residual=residual.double())
    torch.testing.assert_close(y.double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@every_function
def test_jagged(function):
    values = [draw(n, 12, seed=n) for n in (2, 3)]
    x = torch.nested.nested_tensor(values, layout=torch.jagged)
    y = function(x, 12, gate=x, activation="silu")
    alone = function(torch.cat(values), 12, gate=torch.cat(values), activation="silu")
    torch.testing.assert_close(y.values(), alone)
    for gate in (torch.cat(values), torch.nested.nested_tensor(values, layout=torch.strided)):
        with pytest.raises(ValueError, match=f"{function.__name__}: gate must be a nested tensor of input's shape"):
            function(x, 12, gate=gate)


class Gated(torch.nn.Module):
    """A norm whose call is given a gate, for tracers."""

    def __init__(self, norm: torch.nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x, gate):
        return self.norm(x, gate=gate)


@every_kind
def test_compiled_exported_and_traced(kind):
    block, x, gate = Gated(kind(12, activation="silu").double()), draw(4, 5, 12), draw(4, 5, 12, seed=1)
    want = block(x, gate)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="aot_eager")(x, gate), want)
    torch.testing.assert_close(torch.export.export(block, (x, gate)).module()(x, gate), want)
    torch.testing.assert_close(torch.fx.symbolic_trace(block)(x, gate), want)
    torch.testing.assert_close(torch.func.vmap(block)(x, gate), want)
    torch.testing.assert_close(copy.deepcopy(block)(x, gate), want)


@pytest.mark.parametrize(
    ("gate", "rule"),
    [
        (lambda x: x[:1], r"gate must have input's shape \(4, 12\), got \(1, 12\)"),
        (lambda x: x.double(), r"gate must have input's dtype torch\.float32, got torch\.float64"),
        (lambda x: x.bfloat16(), r"gate must have input's dtype torch\.float32, got torch\.bfloat16"),
        (lambda x: x.long(), r"gate must be float64, float32, bfloat16 or float16, got torch\.int64"),
        (lambda x: x.to("meta"), r"gate must be on input's device cpu, got meta"),
        (lambda x: 2.0, r"gate must be a torch\.Tensor or None, got float"),
    ],
)
@every_function
def test_wrong_gates(function, gate, rule):
    x = draw(4, 12).float()
    with pytest.raises(ValueError, match=f"{function.__name__}: {rule}"):
        function(x, 12, gate=gate(x))
