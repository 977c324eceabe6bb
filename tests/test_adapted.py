"""Layer and RMS norm with a weight and a bias of each sample: adaptive layer norm (DiT), FiLM."""

import copy

import pytest
import torch
import torch.nn.functional as F
from common import ScaledAndShifted, need
from test_images import Calls, draw

import normkernels as nk
from normkernels.cases import OPS
from normkernels.functional import layer_norm, rms_norm

BACKENDS = ["native", "reference"]
KINDS = [pytest.param(nk.LayerNorm, id="LayerNorm"), pytest.param(nk.RMSNorm, id="RMSNorm")]
every_kind = pytest.mark.parametrize("kind", KINDS)
BIASED = {nk.LayerNorm: {}, nk.RMSNorm: {"bias": True}}


def adapted(norm, x, residual=None, scale=None, shift=None):
    """As DiT and FiLM write it: (y, s)."""
    s = x if residual is None else x + residual
    weight = None if norm.weight is None else norm.weight + norm.weight_offset
    if isinstance(norm, nk.LayerNorm):
        u = F.layer_norm(s, norm.normalized_shape, weight, norm.bias, vars(norm)["eps"])
    else:
        u = F.rms_norm(s, norm.normalized_shape, weight, norm.eps)
        u = u if norm.bias is None else u + norm.bias
    u = u if scale is None else u * (1 + scale[:, None])
    return F.silu(u if shift is None else u + shift[:, None]), s


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("given", [("scale", "shift"), ("scale",), ("shift",), ("residual", "scale", "shift")], ids=str)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(4, 5, 12), (4, 3, 2, 6)], ids=str)
@every_kind
def test_scale_and_shift_of_the_module(kind, backend, shape, given, affine):
    need(OPS["layer_norm"], backend, "cpu")
    dims = shape[2:]
    options = BIASED[kind] | {"weight_offset": 0.5, "activation": "silu", "backend": backend, "dtype": torch.float64}
    norm = kind(dims, 1e-5, affine, **options)
    for i, p in enumerate(norm.parameters()):
        p.data = draw(*dims, seed=i)
    sizes = {"residual": shape, "scale": (4, *dims), "shift": (4, *dims)}
    tensors = {k: draw(*sizes[k], seed=i).requires_grad_() for i, k in enumerate(given, 2)}
    x, dy = draw(*shape, seed=9).requires_grad_(), draw(*shape, seed=8)
    wanted = [x, *tensors.values(), *norm.parameters()]
    y, (expected, s) = norm(x, **tensors), adapted(norm, x, **tensors)
    if "residual" in given:
        y, found_s = y
        assert torch.equal(found_s, s)
    torch.testing.assert_close(y, expected)
    found = torch.autograd.grad(y, wanted, dy, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, wanted, dy))


@pytest.mark.parametrize("function", [layer_norm, rms_norm], ids=lambda f: f.__name__)
def test_gradients_by_differences(function):
    def call(x, w, b, residual):
        return function(x, 6, w, bias=b, eps=0.1, residual=residual, activation="gelu", weight_offset=1.0)

    tensors = [draw(*size, seed=i).requires_grad_() for i, size in enumerate([(3, 2, 6), (3, 6), (3, 6), (3, 2, 6)])]
    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 3, 12), (6, 70, 64), (7, 1, 96), (3, 4, 777), (2, 3, 9000), (40, 2, 4)], ids=str)
@pytest.mark.parametrize("function", [layer_norm, rms_norm], ids=lambda f: f.__name__)
def test_a_sample_has_what_it_has_alone(function, shape, dtype):
    """Bit for bit where the loop is that of a sample alone: y and dx."""
    need(OPS["layer_norm"], "native", "cpu")
    B, _, N = shape
    x, dy = (draw(*shape, seed=i).to(dtype) for i in (0, 1))
    w, b = (draw(B, N, seed=i).to(dtype) for i in (2, 3))

    def run(x, w, b, dy):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        y = function(leaves[0], N, leaves[1], bias=leaves[2], activation="silu", backend="native")
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    whole = run(x, w, b, dy)
    for n in range(B):
        alone = run(x[n : n + 1], w[n], b[n], dy[n : n + 1])
        torch.testing.assert_close([alone[0][0], alone[1][0], *alone[2:]], [t[n] for t in whole])


@pytest.mark.parametrize("function", [layer_norm, rms_norm], ids=lambda f: f.__name__)
def test_one_sample_has_the_bits_of_a_plain_weight(function):
    need(OPS["layer_norm"], "native", "cpu")
    x, w, b = draw(1, 37, 250).float(), draw(250, seed=1).float(), draw(250, seed=2).float()
    assert torch.equal(function(x, 250, w[None], bias=b[None]), function(x, 250, w, bias=b))


@every_kind
def test_nothing_of_the_size_of_input_is_copied(kind):
    """And without an affine no table is made: the kernel adds the 1."""
    need(OPS["layer_norm"], "native", "cpu")
    norm, x, table = kind(12, elementwise_affine=False, backend="native"), draw(4, 5, 12), draw(4, 12)
    with Calls() as seen, torch.no_grad():
        norm(x, scale=table, shift=table)
    names = [name.split(".")[1] for name in seen.names]
    assert sum(name.endswith("norm_fwd") for name in names) == 1
    assert not {"copy_", "clone", "mul", "add"} & set(names)


@every_kind
def test_16_bit_samples_beside_tables_in_float32(kind):
    norm = kind(12, eps=1e-5, activation="silu")
    x, t = draw(4, 5, 12), draw(4, 12, seed=1).float()
    y = norm(x.bfloat16(), scale=t, shift=t)
    assert y.dtype == torch.bfloat16
    exact, _ = adapted(copy.deepcopy(norm).double(), x.bfloat16().double(), None, t.double(), t.double())
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=2**-8)


@every_kind
def test_no_samples(kind):
    norm, scale = kind(6), torch.ones(0, 6, requires_grad=True)
    y = norm(torch.empty(0, 3, 6), scale=scale)
    y.sum().backward()
    assert y.shape == (0, 3, 6)
    assert scale.grad is not None
    assert scale.grad.shape == (0, 6)


@every_kind
def test_compiled_exported_and_traced(kind):
    norm, x, t = kind(12).double(), draw(4, 5, 12), draw(4, 12, seed=1)
    want = norm(x, None, t, t)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, None, t, t), want)
    torch.testing.assert_close(torch.export.export(norm, (x, None, t, t)).module()(x, None, t, t), want)

    torch.testing.assert_close(torch.fx.symbolic_trace(ScaledAndShifted(norm))(x, t), want)
    torch.testing.assert_close(torch.func.vmap(norm, (0, None, 0, 0))(x[None], None, t[None], t[None])[0], want)


RAGGED = torch.nested.nested_tensor([torch.ones(2, 12), torch.ones(3, 12)], layout=torch.jagged)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, t: layer_norm(x, 12, t[:3]), r"layer_norm: weight must have shape \(12,\), got \(3, 12\)"),
        (lambda x, t: layer_norm(x, 12, t, t[0]), r"layer_norm: bias must have shape \(4, 12\), got \(12,\)"),
        (lambda x, t: rms_norm(x, 12, t[0], bias=t), r"rms_norm: weight must have shape \(4, 12\), got \(12,\)"),
        (lambda x, t: layer_norm(x[0, 0], 12, t[:1]), r"layer_norm: weight must have shape \(12,\), got \(1, 12\)"),
        (lambda x, t: rms_norm(RAGGED, 12, t), r"rms_norm: weight or bias must have the shape of normalized_shape"),
        (lambda x, t: nk.LayerNorm(12)(x, scale=t[0]), r"LayerNorm: scale must have shape \(4, 12\), got \(12,\)"),
        (lambda x, t: nk.RMSNorm(12)(x, shift=2.0), r"RMSNorm: shift must have shape \(4, 12\), got float"),
    ],
)
def test_wrong_tables(call, message):
    with pytest.raises(ValueError, match=message):
        call(draw(4, 5, 12).float(), draw(4, 12).float())
