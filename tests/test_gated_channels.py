"""Group and instance norm with a gate: u act(gate), forward and backward in the passes that the norm makes anyway."""

import copy

import pytest
import torch
import torch.nn.functional as F
from common import need
from test_gated import NEAR, Gated
from test_images import Calls, draw

import normkernels as nk
from normkernels import ACTIVATIONS
from normkernels.cases import OPS
from normkernels.cases._channels import last
from normkernels.cases._rows import activate
from normkernels.functional import group_norm, instance_norm
from normkernels.ops._channels import ChannelsRecipe, Settings
from normkernels.ops.group_norm import group_norm_bwd, group_norm_fwd

every_layout = pytest.mark.parametrize("layout", [torch.Tensor.contiguous, last], ids=["planes", "channels_last"])
FUNCTIONS = {
    "group_norm": lambda x, w, b, **after: group_norm(x, 4, w, b, **after),
    "instance_norm": lambda x, w, b, **after: instance_norm(x, weight=w, bias=b, **after),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def formula(name, x, gate, weight=None, bias=None, activation="silu"):
    """By torch's ops; weight and bias (C,), or one for each image."""
    u = F.group_norm(x, 4 if name == "group_norm" else x.shape[1])
    weight, bias = (None if t is None else t.view(-1, x.shape[1], *[1] * (x.dim() - 2)) for t in (weight, bias))
    u = u if weight is None else u * weight
    return (u if bias is None else u + bias) * activate(gate, activation, 0.01)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("given", [(), ("scale", "shift"), ("shift",)], ids=str)
@every_layout
def test_group_norm_as_a_module(backend, layout, given):
    need(OPS["group_norm"], backend, "cpu")
    norm = nk.GroupNorm(3, 12, activation="silu", backend=backend, dtype=torch.float64)
    plain = nk.GroupNorm(3, 12, backend="reference", dtype=torch.float64)
    for i, (p, q) in enumerate(zip(norm.parameters(), plain.parameters(), strict=True)):
        p.data = q.data = draw(12, seed=i)
    tensors = {k: draw(4, 12, seed=i).requires_grad_() for i, k in enumerate(given, 2)}
    x, gate, dy = (layout(draw(4, 12, 3, 5, seed=i)).requires_grad_() for i in (7, 8, 9))
    y, want = norm(x, **tensors, gate=gate), plain(x, **tensors) * F.silu(gate)
    torch.testing.assert_close(y, want)
    assert y.stride() == x.stride()
    found = torch.autograd.grad(y, [x, gate, *tensors.values(), *norm.parameters()], dy)
    wanted = torch.autograd.grad(want, [x, gate, *tensors.values(), *plain.parameters()], dy)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("training", [True, False])
@every_layout
def test_instance_norm_as_a_module(layout, training):
    norm = nk.InstanceNorm2d(12, affine=True, track_running_stats=True, activation="sigmoid", dtype=torch.float64)
    twin = torch.nn.InstanceNorm2d(12, affine=True, track_running_stats=True, dtype=torch.float64)
    norm.train(training)
    twin.train(training)
    x, gate, dy = (layout(draw(4, 12, 3, 5, seed=i)).requires_grad_() for i in (7, 8, 9))
    y, want = norm(x, gate=gate), twin(x) * torch.sigmoid(gate)
    torch.testing.assert_close(y, want)
    found = torch.autograd.grad(y, [x, gate, *norm.parameters()], dy)
    torch.testing.assert_close(found, torch.autograd.grad(want, [x, gate, *twin.parameters()], dy))
    torch.testing.assert_close(norm.running_var, twin.running_var)
    if not training:
        torch.testing.assert_close(norm(x[0], gate=gate[0]), y[0])  # an image alone


@pytest.mark.parametrize(("name", "images"), [("group_norm", False), ("group_norm", True), ("instance_norm", False)])
def test_gradients_by_differences(name, images):
    sizes = [(2, 8, 3), *[(2, 8) if images else (8,)] * 2, (2, 8, 3)]
    tensors = [draw(*size, seed=i).requires_grad_() for i, size in enumerate(sizes)]

    def call(x, w, b, gate):
        return FUNCTIONS[name](x, w, b, eps=0.1, gate=gate, activation="silu")

    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


# one position, planes that are taken together, odd ones, whole ones, planes in steps, and one image for all threads
SHAPES = [(5, 12, 1), (3, 12, 2, 2), (4, 64, 3, 3), (3, 12, 5, 7), (2, 8, 40, 40), (1, 8, 150, 171)]
CALLS = [*(("group_norm", s) for s in SHAPES), *(("instance_norm", s) for s in SHAPES[1:])]


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize(("name", "shape"), CALLS, ids=str)
@every_layout
def test_native_kernels_in_float64(name, layout, shape, dtype):
    """Each gradient with the others and, of input, without the gate's."""
    need(OPS[name], "native", "cpu")
    x, gate, dy = (layout(draw(*shape, seed=i)).to(dtype).requires_grad_() for i in range(3))
    w, b = (draw(shape[1], seed=i).to(dtype).requires_grad_() for i in (3, 4))
    y = FUNCTIONS[name](x, w, b, gate=gate, activation="silu", backend="native")
    exact = [t.detach().double().requires_grad_() for t in (x, gate, w, b)]
    want = formula(name, *exact)
    found, wanted = torch.autograd.grad(y, (x, gate, w, b), dy), torch.autograd.grad(want, exact, dy.double())
    shut = FUNCTIONS[name](x, w, b, gate=gate.detach(), activation="silu", backend="native")
    (alone,) = torch.autograd.grad(shut, x, dy)
    for one, other in zip([y, *found, alone], [want, *wanted, wanted[0]], strict=True):
        off = (one.double() - other).abs().max()
        assert off <= NEAR[dtype] * other.abs().max(), float(off)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@every_layout
def test_every_activation_opens_a_gate(layout, activation):
    need(OPS["group_norm"], "native", "cpu")
    x, gate, dy = (layout(draw(3, 8, 5, 7, seed=i)).requires_grad_() for i in range(3))
    want = formula("group_norm", x, gate, activation=activation)
    y = group_norm(x, 4, gate=gate, activation=activation, backend="native")
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(*(torch.autograd.grad(t, (x, gate), dy) for t in (y, want)))


@every_function
def test_without_an_activation_a_gate_multiplies(name):
    x, gate = draw(2, 8, 5), draw(2, 8, 5, seed=1)
    torch.testing.assert_close(FUNCTIONS[name](x, None, None, gate=gate), FUNCTIONS[name](x, None, None) * gate)


@every_layout
@every_function
def test_one_kernel_and_no_copies(name, layout):
    need(OPS[name], "native", "cpu")
    x, gate = layout(draw(3, 8, 4, 5)), layout(draw(3, 8, 4, 5, seed=1))
    with Calls() as seen, torch.no_grad():
        FUNCTIONS[name](x, None, None, gate=gate, activation="silu", backend="native")
    names = [name.split(".")[1] for name in seen.names]
    assert sum(name.endswith("norm_fwd") for name in names) == 1
    assert not {"copy_", "clone", "mul", "silu"} & set(names)


@pytest.mark.parametrize("norm", [nk.GroupNorm(4, 8, activation="silu"), nk.InstanceNorm2d(8, activation="silu")])
def test_compiled_exported_and_traced(norm):
    block, x, gate = Gated(copy.deepcopy(norm).double()), draw(4, 8, 3, 5), draw(4, 8, 3, 5, seed=1)
    want = block(x, gate)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="aot_eager")(x, gate), want)
    torch.testing.assert_close(torch.export.export(block, (x, gate)).module()(x, gate), want)
    torch.testing.assert_close(torch.fx.symbolic_trace(block)(x, gate), want)
    many, gates = torch.stack([x, 2 * x]), torch.stack([gate, gate])
    torch.testing.assert_close(torch.func.vmap(block)(many, gates)[0], want)
    torch.testing.assert_close(copy.deepcopy(block)(x, gate), want)


def test_in_the_operators_of_onnx():
    x, gate = draw(2, 8, 3, 5), draw(2, 8, 3, 5, seed=1)
    settings = Settings(group_norm_fwd, group_norm_bwd, False, 4, 1e-5, "gated_silu", 0.01, None)
    y, *_ = ChannelsRecipe.standard(x, gate, None, None, None, None, settings)
    torch.testing.assert_close(y, formula("group_norm", x, gate))


def test_inlined_where_statistics_are_given():
    norm = nk.InstanceNorm2d(8, track_running_stats=True, activation="silu", dtype=torch.float64).eval()
    x, gate = draw(2, 8, 3, 5), draw(2, 8, 3, 5, seed=1)
    want = F.instance_norm(x, norm.running_mean, norm.running_var, use_input_stats=False) * F.silu(gate)
    with torch.no_grad():
        found = torch.compile(norm, fullgraph=True, backend="aot_eager")(x, gate=gate)
        torch.testing.assert_close(found, want)


def test_a_gate_leaves_no_room_for_a_skip():
    x = draw(2, 8, 5)
    for name, function in FUNCTIONS.items():
        with pytest.raises(ValueError, match=f"{name}: gate must be given without a skip, got both"):
            function(x, None, None, gate=x, skip=x)
    op = torch.ops.normkernels.group_norm_fwd
    need(OPS["group_norm"], "native", "cpu")
    tables = draw(2, 4), draw(2, 4)
    with pytest.raises(RuntimeError, match="skip must be given where the activation is that of a gate"):
        op(x, None, None, None, x.clone(), *tables, 1e-5, "gated_silu", 0.01, False, "native")
    with pytest.raises(RuntimeError, match="activation must be a name of ACTIVATIONS, got 'of_a_gate'"):
        op(x, x, None, None, x.clone(), *tables, 1e-5, "gated_of_a_gate", 0.01, False, "native")
    with pytest.raises(ValueError, match="activation must be None or one of"):
        group_norm(x, 4, activation="gated_silu")


@pytest.mark.parametrize(
    ("gate", "rule"),
    [
        (lambda x: x[:1], r"gate must have input's shape \(4, 8, 3\), got \(1, 8, 3\)"),
        (lambda x: x.double(), r"gate must have input's dtype torch\.float32, got torch\.float64"),
        (lambda x: x.long(), r"gate must be float64, float32, bfloat16 or float16, got torch\.int64"),
        (lambda x: x.to("meta"), r"gate must be on input's device cpu, got meta"),
        (lambda x: 2.0, r"gate must be a torch\.Tensor or None, got float"),
    ],
)
@every_function
def test_wrong_gates(name, gate, rule):
    x = draw(4, 8, 3).float()
    with pytest.raises(ValueError, match=f"{name}: {rule}"):
        FUNCTIONS[name](x, None, None, gate=gate(x))
