"""What a state is worth: inference, dtypes, layouts, gradients, and every backend."""

import copy
from functools import partial

import pytest
import torch
from common import STATEFUL, every_layout, every_stateful_op, every_target, need
from stateful_layers import SHAPES, STEMS, cotangent, every_kind, every_name, new, numbers, same, state, step, used

import normkernels as nk

# inference


@pytest.mark.parametrize("shape", [(6, 12), (6, 12, 12), (6, 12, 7), (5, 12, 3, 4), (3, 12, 2, 3, 4)], ids=str)
@every_kind
def test_inference(kind, shape):
    """Constants of each channel in every rank, (N, C, L) with L == C included; the gradient is the derivative."""
    name = f"{kind}{max(1, len(shape) - 2)}d"
    module, _ = used(name)
    x, view = numbers(shape, 8).requires_grad_(), [1, -1, *[1] * (len(shape) - 2)]
    mean = module.running_mean
    scale = {
        "OnlineNorm": lambda: torch.sqrt(module.running_var + module.eps),
        "BatchRenorm": lambda: module.running_std,
        "StreamingNorm": lambda: module.running_scale,
    }[kind]()
    z = (x - mean.view(view)) / scale.view(view) * module.weight.view(view) + module.bias.view(view)
    if kind == "OnlineNorm":
        z = z * torch.rsqrt(z.square().mean(tuple(range(1, len(shape))), keepdim=True) + module.ls_eps)
    dy = numbers(shape, 9)
    want = [z.detach(), *torch.autograd.grad(z, [x, module.weight, module.bias], dy)]
    y = module.eval()(x)
    torch.testing.assert_close([y.detach(), *torch.autograd.grad(y, [x, module.weight, module.bias], dy)], want)


# dtypes and layouts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_layout
@every_kind
def test_sixteen_bits(kind, layout, dtype):
    """16-bit input: its dtype and layout come out, in training and after it; the state is that of float32 input."""
    module, x = used(kind + "2d", dtype=torch.float32)
    twin, x = copy.deepcopy(module), layout(x).to(dtype)
    dy = numbers(x.shape, 1).to(dtype)
    for m, t in ((module, x), (twin, x.float())):
        t.requires_grad_()
        y = m(t)
        assert (y.dtype, y.stride()) == (t.dtype, x.stride())
        y.backward(dy.to(y.dtype))
        assert t.grad.dtype == t.dtype
    torch.testing.assert_close(x.grad, t.grad.to(dtype))
    torch.testing.assert_close(state(module), state(twin))
    y = module.eval()(x)
    assert (y.dtype, y.stride()) == (dtype, x.stride())


CASTS = {
    "half": torch.nn.Module.half,
    "bfloat16": torch.nn.Module.bfloat16,
    "to": partial(torch.nn.Module.to, dtype=torch.float16),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
@every_kind
def test_a_model_in_sixteen_bits_keeps_its_state(kind, cast):
    """In float32, bit for bit, where small steps still add up; double() widens it."""
    module, x = used(kind + "2d", dtype=torch.float32)
    before = state(module)
    cast(module)
    assert module.weight.dtype.itemsize == 2
    same(state(module), before)
    assert module(x.to(module.weight.dtype)).dtype == module.weight.dtype
    assert getattr(nk, kind + "2d")(12, dtype=torch.bfloat16).running_mean.dtype == torch.float32
    module.double()
    assert all(t.dtype in (torch.float64, torch.int64) for t in module.buffers())


@every_kind
def test_float64_is_float64(kind):
    """Nothing on the way is rounded to float32."""
    name = kind + "2d"
    (module, x), (twin, _) = used(name), used(name, backend="reference")
    for _ in range(2):
        torch.testing.assert_close(step(module, x), step(twin, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state(module), state(twin), rtol=1e-12, atol=1e-12)


@every_kind
def test_autocast(kind):
    module, x = used(kind + "2d", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == torch.float32
        assert module(x.bfloat16()).dtype == torch.bfloat16


# gradients


@every_name
def test_create_graph(name):
    """The same gradients, the same move of the state, and no buffer that needs a gradient afterwards."""
    (module, x), (twin, _) = used(name), used(name)
    y, wanted = module(x.requires_grad_()), [x, *module.parameters()]
    grads = torch.autograd.grad(y, wanted, cotangent(y), create_graph=True)
    torch.testing.assert_close(list(grads), step(twin, x)[1:])
    torch.testing.assert_close(state(module), state(twin))
    assert not any(t.requires_grad or t.grad_fn for t in module.buffers())


@every_name
def test_a_second_backward(name):
    """Through a graph that was kept: the same gradients, and the state does not move again."""
    (module, x), (twin, _) = used(name), used(name)
    y, wanted = module(x.requires_grad_()), [x, *module.parameters()]
    first = torch.autograd.grad(y, wanted, cotangent(y), retain_graph=True)
    same(list(first), step(twin, x)[1:])
    same(torch.autograd.grad(y, wanted, cotangent(y), retain_graph=True), first)
    same(state(module), state(twin))
    step(module, numbers(x.shape, 11))  # another call in between
    before = state(module)
    same(torch.autograd.grad(y, wanted, cotangent(y)), first)
    same(state(module), before)


@every_name
def test_backward_sees_the_call_as_it_was(name):
    """Calls between a forward and its backward change nothing in what its gradients say about y."""
    (module, x), (twin, _) = used(name), used(name)
    y = module(x.requires_grad_())
    want = step(twin, x)[1:]
    with torch.no_grad():
        module(numbers(x.shape, 11))
    same(list(torch.autograd.grad(y, [x, *module.parameters()], cotangent(y))), want)


# every backend, on the functions


@every_stateful_op
@every_target
def test_backends_move_the_state_alike(backend, device, op):
    """Step after step from the first state; the reference in float64 says how."""
    need(op, backend, device)
    kind = next(k for k, stem in STEMS.items() if stem == op.stem)
    wide = new(kind + "2d", backend="reference")
    ours = new(kind + "2d", backend=backend, dtype=torch.float32)
    ours.load_state_dict(wide.state_dict())
    ours = ours.to(device)
    for i in range(4):
        x = numbers(SHAPES["2d"], i).float()
        step(wide, x.double())
        step(ours, x.to(device))
        if i == 1 and kind == "StreamingNorm":
            wide.weights_changed()
            ours.weights_changed()
    got = {k: t.cpu().double() for k, t in state(ours).items()}
    torch.testing.assert_close(got, {k: t.double() for k, t in state(wide).items()}, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("k", [4.0, 0.25])
@every_target
@pytest.mark.parametrize("op", [op for op in STATEFUL if op.stem != "online_norm"], ids=str)
def test_scale_and_shift(op, backend, device, k):
    """x -> k x + c with a state to match and eps k^2: the same y, and dx smaller by k."""
    need(op, backend, device)
    sample = next(s for s in op.samples if s.id == "3x20x5x7-eval")
    terms = [(k, 7.0), (k, 0.0), (1 / k, 0.0), (1 / k, 0.0)]  # of each row: factor and shift
    rows = {"running_mean": [(k, 7.0)], "running_std": [(k, 0.0)], "long_term": terms, "short_term": terms}
    found = []
    for scaled in (False, True):
        tensors = {name: t.clone().to(device) for name, t in sample.present().items()}
        if scaled:
            tensors["input"] = k * tensors["input"] + 7
            for name in rows.keys() & tensors.keys():
                factor, shift = torch.tensor(rows[name], dtype=torch.float64, device=device).T[..., None]
                tensors[name] = (tensors[name] * factor + shift).view(tensors[name].shape)
        x = tensors["input"].requires_grad_()
        arguments = sample.call | {"training": True, "eps": sample.call["eps"] * (k * k if scaled else 1)}
        y = op.function(**tensors, **arguments, backend=backend)
        (dx,) = torch.autograd.grad(y, x, sample.cotangents[0].to(device))
        found.append([y.detach(), dx * (k if scaled else 1)])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
