"""Whatever looks inside a call gets what the plain way gives: torch.func, forward mode, batched gradients, fx, jit."""

import copy
import io

import pytest
import torch
from layers import LAYERS, Layer, every_layer, every_layer_and_mode, first
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap

import normkernels as nk

pytestmark = pytest.mark.usefixtures("seeded")


def pure(layer: Layer, training: bool):
    """(f, parameters, buffers): f(x, parameters, buffers) starts from these buffers and leaves them as they are."""
    module = layer.used(training)

    def f(x, parameters=None, buffers=None):
        parameters = dict(module.named_parameters()) if parameters is None else parameters
        buffers = dict(module.named_buffers()) if buffers is None else buffers
        state = {name: b.clone() for name, b in buffers.items()}
        return first(functional_call(module, (parameters, state), (x,)))

    return f, {k: p.detach() for k, p in module.named_parameters()}, dict(module.named_buffers())


def plain_gradient(f, x, v):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x), x, v)[0]


def plain_jvp(f, x, t):
    """The transpose of the gradient, which is linear in the gradient of the output: twice backward."""
    x = x.detach().requires_grad_()
    y = f(x)
    v = torch.zeros_like(y, requires_grad=True)
    g = torch.autograd.grad(y, x, v, create_graph=True)[0]
    return torch.autograd.grad(g, v, t)[0]


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)


@every_layer_and_mode
def test_gradient(layer, training):
    """torch.func.grad and vjp, by the input and by the parameters."""
    f, parameters, _ = pure(layer, training)
    x, v = layer.input(torch.float64), torch.randn_like(f(layer.input(torch.float64)))
    close(vjp(f, x)[1](v)[0], plain_gradient(f, x, v))
    got = grad(lambda parameters: (f(x, parameters) * v).sum())(parameters)
    leaves = {k: p.clone().requires_grad_() for k, p in parameters.items()}
    if leaves:
        (f(x, leaves) * v).sum().backward()
    for name, leaf in leaves.items():
        close(got[name], leaf.grad)


@every_layer_and_mode
def test_forward_mode(layer, training):
    """torch.func.jvp, and dual numbers."""
    f, _, _ = pure(layer, training)
    x, t = layer.input(torch.float64), torch.randn(layer.shape, dtype=torch.float64)
    want = plain_jvp(f, x, t)
    close(jvp(f, (x,), (t,))[1], want)
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(f(forward_ad.make_dual(x, t))).tangent, want)


@every_layer_and_mode
def test_jacobians(layer, training):
    f, _, _ = pure(layer, training)
    x = layer.input(torch.float64)
    want = torch.autograd.functional.jacobian(f, x)
    close(jacrev(f)(x), want)
    close(jacfwd(f)(x), want)


@every_layer_and_mode
def test_vmap(layer, training):
    """Calls with buffers of their own; and where nothing moves, with shared ones."""
    f, parameters, buffers = pure(layer, training)
    xs = torch.stack([layer.input(torch.float64, seed=i) for i in range(3)])
    want = torch.stack([f(x) for x in xs])
    state = {k: b.expand(3, *b.shape) for k, b in buffers.items()}
    close(vmap(lambda x, b: f(x, None, b))(xs, state), want)
    if not training or not buffers:
        close(vmap(f)(xs), want)
    models = {k: torch.stack([p + i for i in range(3)]) for k, p in parameters.items()}  # an ensemble
    if models:
        got = vmap(lambda p: f(xs[0], p))(models) if not (training and buffers) else None
        want = torch.stack([f(xs[0], {k: p[i] for k, p in models.items()}) for i in range(3)])
        if got is not None:
            close(got, want)


@every_layer_and_mode
def test_gradients_of_each_sample(layer, training):
    """vmap of grad."""
    f, _, buffers = pure(layer, training)
    xs = torch.stack([layer.input(torch.float64, seed=i) for i in range(3)])
    v = torch.randn_like(f(xs[0]))
    state = {k: b.expand(3, *b.shape) for k, b in buffers.items()}
    got = vmap(grad(lambda x, b: (f(x, None, b) * v).sum()))(xs, state)
    close(got, torch.stack([plain_gradient(f, x, v) for x in xs]))


@every_layer_and_mode
def test_batched_gradients(layer, training):
    """autograd.grad(is_grads_batched=True) of a call on the kernels."""
    f, _, _ = pure(layer, training)
    x = layer.input(torch.float64).requires_grad_()
    y = f(x)
    vs = torch.randn(4, *y.shape, dtype=y.dtype)
    got = torch.autograd.grad(y, x, vs, is_grads_batched=True)[0]
    close(got, torch.stack([plain_gradient(f, x, v) for v in vs]))


@every_layer
def test_state_moves_inside_a_transform(layer):
    """A training call of the module itself under grad moves its buffers as the plain call does."""
    ours, plain = layer.used(), layer.used()
    x = layer.input(torch.float64)
    grad(lambda x: first(ours(x)).sum())(x)
    leaf = x.clone().requires_grad_()
    first(plain(leaf)).sum().backward()
    for (name, got), want in zip(ours.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9, msg=name)


@every_layer
def test_a_shared_state_under_vmap_is_refused(layer):
    """There is no right value for it, and it stays as it was."""
    module = layer.used()
    before = copy.deepcopy(module.state_dict())
    xs = torch.stack([layer.input(torch.float64, seed=i) for i in range(3)])
    if not before.keys() - dict(module.named_parameters()).keys():
        pytest.skip("no state")
    with pytest.raises(RuntimeError, match="mapped over"):
        vmap(lambda x: first(module(x)))(xs)
    for name, t in module.state_dict().items():
        assert torch.equal(t, before[name]), name


@every_layer_and_mode
def test_fx(layer, training):
    """A leaf of a symbolic trace, as torch.nn's layers are."""
    module = torch.nn.Sequential(layer.used(training))
    traced = torch.fx.symbolic_trace(module)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["0"]
    x = layer.input(torch.float64)
    close(first(copy.deepcopy(traced)(x)), first(copy.deepcopy(module)(x)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # torch's own recurrent layers give them too
@pytest.mark.filterwarnings("ignore:a trace cannot hold a gradient")
@every_layer_and_mode
def test_jit_trace(layer, training):
    """Traced, saved, loaded, and run on another input; the state moves on."""
    module, x = layer.used(training), layer.input(torch.float64)
    traced = torch.jit.trace(copy.deepcopy(module), (x,), check_trace=False)
    saved = io.BytesIO()
    torch.jit.save(traced, saved)
    saved.seek(0)
    loaded = torch.jit.load(saved)
    first(module(x))  # what tracing did
    other = layer.input(torch.float64, seed=5)
    close(first(loaded(other)), first(module(other)))
    for (name, got), want in zip(loaded.named_buffers(), module.buffers(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9, msg=name)


FUNCTIONS = {name: getattr(nk.functional, name) for name in nk.functional.__all__}


def test_an_explicit_backend_is_refused():
    layer = next(layer for layer in LAYERS if layer.name == "LayerNorm")
    module = layer.used(backend="native")
    with pytest.raises(RuntimeError, match=r"layer_norm: backend 'native' cannot run here: a transform of torch.func"):
        grad(lambda x: module(x).sum())(layer.input(torch.float64))


class Marked(torch.Tensor):
    """A subclass as users write them."""


def test_subclasses():
    """torch's protocol: the function is seen whole, and its result is of the subclass."""
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    x = torch.randn(3, 6).as_subclass(Marked)
    with Mode():
        y = nk.functional.layer_norm(x, (6,))
    assert type(y) is Marked
    assert nk.functional.layer_norm in seen
