"""Weight norm, weight standardisation and the projection as functions."""

import pytest
import torch
from common import TARGETS, every_target, need
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import normkernels as nk
from normkernels.cases import OPS
from normkernels.ops.weight_norm import project
from normkernels.tolerance import given, run

WEIGHT_NORM, STANDARDIZATION = OPS["weight_norm"], OPS["weight_standardization"]


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


@every_target
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)])
def test_a_weight_keeps_its_layout(order, backend, device):
    """Forward and backward: no copy, whichever way the dims of a filter lie."""
    need(WEIGHT_NORM, backend, device)
    v = torch.empty_permuted((5, 4, 3, 2), order, device=device).normal_().requires_grad_()
    w = nk.functional.weight_norm(v, torch.ones(5, device=device), backend=backend)
    (dv,) = torch.autograd.grad(w, v, torch.ones_like(v))
    assert backend == "reference" or w.stride() == dv.stride() == v.stride()
    torch.testing.assert_close(w, v / v.square().sum((1, 2, 3), keepdim=True).sqrt())


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
    "backend": ({"backend": "x"}, "backend must be one of triton, native, reference, got 'x'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments(wrong):
    changes, message = WRONG[wrong]
    with pytest.raises(ValueError, match=f"^weight_norm: {message}$"):
        nk.functional.weight_norm(**({"v": torch.ones(5, 3), "g": torch.ones(5)} | changes))


def test_wrong_gain():
    with pytest.raises(ValueError, match=r"^weight_standardization: gain must have shape \(5,\), got \(3,\)$"):
        nk.functional.weight_standardization(torch.ones(5, 3), torch.ones(3))
