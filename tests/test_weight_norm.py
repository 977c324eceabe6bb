"""Weight norm, weight standardisation and the unit-norm projection: against torch, as torch sees them, in modules."""

import copy
import pickle
import re

import pytest
import torch
from common import TARGETS, every_target, need
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils import parametrize

import normkernels as nk
from normkernels.cases import OPS
from normkernels.ops.weight_norm import project
from normkernels.tolerance import given, run

WEIGHT_NORM, STANDARDIZATION = OPS["weight_norm"], OPS["weight_standardization"]
ours, theirs = nk.parametrizations.weight_norm, nn.utils.parametrizations.weight_norm
LAYERS = [
    pytest.param(lambda: nn.Linear(4, 3), (5, 4), id="linear"),
    pytest.param(lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5), id="conv"),
    pytest.param(lambda: nn.ConvTranspose1d(4, 3, 5), (2, 4, 7), id="transposed"),
]


@every_target
@pytest.mark.parametrize("dim", [0, 2])
def test_against_torch(dim, backend, device):
    """torch's own fused weight norm and its gradients."""
    need(WEIGHT_NORM, backend, device)
    v, dw = torch.randn(2, 5, 4, 3, dtype=torch.float64, device=device)
    g = torch.randn([v.shape[d] if d == dim else 1 for d in range(3)], dtype=torch.float64, device=device)
    results = []
    for f in (torch._weight_norm, lambda *args: nk.functional.weight_norm(*args, backend=backend)):
        leaves = v.clone().requires_grad_(), g.clone().requires_grad_()
        w = f(*leaves, dim)
        results.append((w, *torch.autograd.grad(w, leaves, dw)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_double_backward(dim):
    """Right, where torch's own is not."""
    v = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    filters = 1 if dim is None else v.shape[dim]
    beside = [] if dim is None else [filters if d == dim else 1 for d in range(3)]  # g as the parametrization has it
    for shape in ([filters], beside):
        g = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        assert gradgradcheck(lambda v, g: nk.functional.weight_norm(v, g, dim), (v, g))


@pytest.mark.parametrize("gain", [False, True])
def test_finite_differences_of_standardisation(gain):
    w = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    leaves = [w, torch.randn(3, dtype=torch.float64, requires_grad=True)][: 1 + gain]
    assert gradcheck(nk.functional.weight_standardization, leaves)
    assert gradgradcheck(nk.functional.weight_standardization, leaves)


@every_target
def test_the_gradient_is_at_right_angles(backend, device):
    need(WEIGHT_NORM, backend, device)
    v = torch.randn(7, 33, dtype=torch.float64, device=device, requires_grad=True)
    g = torch.randn(7, dtype=torch.float64, device=device)
    (dv,) = torch.autograd.grad(nk.functional.weight_norm(v, g, backend=backend), v, torch.randn_like(v))
    assert (v * dv).sum(1).abs().max() < 1e-14


@every_target
def test_a_filter_of_zeros(backend, device):
    """It stays zero, in every dtype, and its gradients are 0."""
    need(WEIGHT_NORM, backend, device)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        v = torch.randn(3, 5, dtype=dtype, device=device)
        v[1] = 0
        leaves = v.requires_grad_(), torch.ones(3, dtype=dtype, device=device, requires_grad=True)
        w = nk.functional.weight_norm(*leaves, backend=backend)
        dv, dg = torch.autograd.grad(w, leaves, torch.ones_like(w))
        assert not any(t[1].any() for t in (w, dv, dg))
        assert all(t.isfinite().all() for t in (w, dv, dg))


def test_one_thread_or_two():
    """The same bits, for many filters and for one that is shared."""
    need(WEIGHT_NORM, "native", "cpu")
    samples = [(op, s) for op in (WEIGHT_NORM, STANDARDIZATION) for s in op.samples if s.id in ("37x250", "1x200000")]
    before = torch.get_num_threads()
    for op, sample in samples:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(run(op, sample.call, *given(op, sample, torch.float32), "native"))
        torch.set_num_threads(before)
        assert all(torch.equal(a, b) for a, b in zip(*(f.values() for f in found), strict=True))


@pytest.mark.parametrize(("backend", "device"), [t for t in TARGETS if t[0] != "triton" or t[1] == "cuda"])
@pytest.mark.parametrize("op", [WEIGHT_NORM, STANDARDIZATION], ids=str)
def test_compile_and_export(op, backend, device):
    need(op, backend, device)
    sample = op.make((5, 33), device=device)
    tensors = {k: t.requires_grad_() for k, t in sample.present().items()}

    def function(tensors):
        return op.function(**tensors, backend=backend)

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True)
    results = []
    for f in (function, compiled):
        y = f(tensors)
        results.append([y, *torch.autograd.grad(y, list(tensors.values()), sample.cotangents)])
    for got, want in zip(*results, strict=True):  # Inductor rounds the reference's own ops in its own way
        assert torch.equal(got, want) or (backend == "reference" and torch.allclose(got, want, atol=1e-6))

    class Model(nn.Module):
        def forward(self, tensors):
            return function(tensors)

    exported = torch.export.export(Model(), (tensors,))
    assert torch.equal(exported.module()(tensors), results[0][0])


@pytest.mark.parametrize("make", [lambda **kw: torch.randn(5, 3, 2, **kw), lambda **kw: torch.randn(2, 5, 3, **kw)])
def test_meta_tensors(make):
    w = nk.functional.weight_norm(make(device="meta"), torch.ones(5, device="meta"), 0 if make().shape[0] == 5 else 1)
    assert w.is_meta
    assert w.shape == make().shape


@every_target
def test_projection(backend, device):
    """Every filter of every weight gets length 1, in place; a filter of zeros stays, other layouts too."""
    need(WEIGHT_NORM, backend, device)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        shapes = [(3, 5), (1, 7), (40, 2, 3, 3), (2, 5000), (6, 4, 3, 3), (0, 4)]
        weights = [torch.randn(s, dtype=dtype, device=device) for s in shapes]
        weights[4] = weights[4].contiguous(memory_format=torch.channels_last)
        weights.append(torch.randn(8, 12, dtype=dtype, device=device)[::2, ::3])
        weights[0][1] = 0
        want = [w.double() for w in weights]
        versions = [w._version for w in weights]
        project(weights, backend)
        for w, before, version in zip(weights, want, versions, strict=True):
            norms = before.flatten(1).norm(dim=1).view(-1, *[1] * (w.dim() - 1))
            wanted = torch.where(norms > 0, before / norms, 0)
            torch.testing.assert_close(w.double(), wanted, rtol=4 * torch.finfo(dtype).eps, atol=1e-300)
            assert w._version > version or w.numel() == 0


WRONG = {
    "dim": ({"dim": 2}, r"dim must be None or in \[-1, 2\), got 2"),
    "dim-low": ({"dim": -2}, r"dim must be None or in \[-1, 2\), got -2"),
    "g-shape": ({"g": torch.ones(4)}, r"g must have shape \(5,\) or \(5, 1\), got \(4,\)"),
    "g-dtype": ({"g": torch.ones(5).half()}, "g must have v's dtype torch.float32, got torch.float16"),
    "g-device": ({"g": torch.ones(5, device="meta")}, "g must be on v's device cpu, got meta"),
    "g-number": ({"g": 1.0}, "g must be a torch.Tensor or None, got float"),
    "v-int": ({"v": torch.ones(5, 3).int()}, "v must be float64, float32, bfloat16 or float16, got torch.int32"),
    "v-list": ({"v": [1.0]}, "v must be a torch.Tensor or None, got list"),
    "v-scalar": ({"v": torch.ones(())}, "v must have at least one dimension, got a scalar"),
    "v-sparse": ({"v": torch.ones(5, 3).to_sparse()}, "v must be a dense tensor, got torch.sparse_coo"),
    "backend": ({"backend": "cuda"}, "backend must be one of triton, native, reference, got 'cuda'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments(wrong):
    changes, message = WRONG[wrong]
    with pytest.raises(ValueError, match=f"^weight_norm: {message}$"):
        nk.functional.weight_norm(**({"v": torch.ones(5, 3), "g": torch.ones(5)} | changes))


def test_wrong_gain():
    with pytest.raises(ValueError, match=r"^weight_standardization: gain must have shape \(5,\), got \(3,\)$"):
        nk.functional.weight_standardization(torch.ones(5, 3), torch.ones(3))


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
