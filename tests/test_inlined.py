"""Compiled for the CPU, rows and given statistics are ordinary ops, which Inductor fuses; with gradients small rows."""

import pytest
import torch
from aot_graphs import Graphs
from torch import Tensor

import normkernels as nk

F = nk.functional
CALLS = {
    "layer": lambda x, **more: F.layer_norm(x, 64, torch.ones(64), torch.zeros(64), **more),
    "layer, added": lambda x, **more: F.layer_norm(x, 64, residual=x, activation="gelu", **more)[0],
    "layer, of pixels": lambda x, **more: F.layer_norm_2d(x[..., None], torch.ones(64), **more),
    "rms": lambda x, **more: F.rms_norm(x, 64, torch.ones(64), weight_offset=1.0, **more),
    "batch": lambda x, **more: F.batch_norm(x, torch.ones(64), torch.ones(64), activation="relu", **more),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
def test_what_is_inlined(call):
    """One graph for all batch sizes, without our ops; with them where the backend is named, or a gradient is taken.

    Of a batch size that may be any, nobody knows that it is small.
    """
    for grad, more, held in ((False, {}, False), (False, {"backend": "native"}, True), (True, {}, True)):
        torch._dynamo.reset()
        counter = Graphs()
        compiled = torch.compile(lambda x, more=more: call(x, **more), backend=counter, fullgraph=True)
        for samples in (5, 6, 9):
            x = torch.randn(samples, 64, requires_grad=grad)
            torch._dynamo.mark_dynamic(x, 0)
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(compiled(x), call(x))
        assert (counter.frame_count, counter.ours) == (1, held)


@every_call
@pytest.mark.parametrize(("samples", "large"), [(2048, False), (2049, True)])
def test_small_rows_are_with_gradients_too(call, samples, large):
    """Up to 2^17 values, which stay in a cache; with the gradient of the op."""
    torch._dynamo.reset()
    counter = Graphs()
    x = torch.randn(samples, 64, requires_grad=True)
    compiled = torch.compile(call, backend=counter, fullgraph=True, dynamic=False)
    found, wanted = (torch.autograd.grad(f(x).square().sum(), x) for f in (compiled, call))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert counter.ours == large


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs(dtype, autocast):
    """In one graph, also where no call was made before."""
    torch._dynamo.reset()
    x, w = torch.randn(4, 64).to(dtype).requires_grad_(), torch.ones(64, dtype=dtype)
    compiled = torch.compile(lambda x: F.layer_norm(x, 64, w), backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", enabled=autocast):
        torch.testing.assert_close(compiled(x), F.layer_norm(x, 64, w))


def test_rows_far_from_0():
    """As exact as our op, where torch's function, given such rows, rounds the mean; the gradient too."""
    torch._dynamo.reset()
    compiled, dy = torch.compile(lambda x: F.layer_norm(x, 64), fullgraph=True), torch.randn(8, 64)

    def of(norm, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        y = norm(x)
        return y.detach(), torch.autograd.grad(y, x, dy.to(x.dtype))[0]

    for mean, deviation in ((1e4, 1e-2), (1e6, 1.0), (1e8, 0.0)):
        x = mean + deviation * torch.randn(8, 64)
        wanted = of(lambda x: torch.nn.functional.layer_norm(x, (64,)), x.double())
        found, ops = of(compiled, x), of(lambda x: F.layer_norm(x, 64), x)
        with torch.no_grad():
            found = compiled(x), *found
        for got, op, want in zip(found, (ops[0], *ops), (wanted[0], *wanted), strict=True):
            allowed = 2 * (op - want).abs().max() + 1e-6 * want.abs().max() + 1e-6
            assert (got - want).abs().max() <= allowed, (mean, deviation)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("function", [F.layer_norm, F.rms_norm])
def test_any_row_and_layout(function, grad):
    """The first eighth far from the rest of the row, short rows, two dims, a transposed tensor; y lies as the op's."""
    far = torch.cat([1e3 + torch.randn(9, 12), torch.randn(9, 84)], 1)
    inputs = [(far, 1), (torch.randn(9, 3), 1), (torch.randn(4, 5, 6), 2), (torch.randn(40, 9).t(), 1)]
    for x, dims in inputs:
        shape = x.shape[-dims:]
        w, b = torch.rand(shape), torch.randn(shape)
        torch._dynamo.reset()
        compiled = torch.compile(lambda x, n=shape, w=w, b=b: function(x, n, w, eps=1e-5, bias=b), fullgraph=True)
        with torch.set_grad_enabled(grad):
            y = compiled(x)
        want = function(x.double(), shape, w.double(), eps=1e-5, bias=b.double())
        assert (y - want).abs().max() <= 2e-6 * want.abs().max()
        assert y.stride() == want.stride()


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("format", [torch.preserve_format, torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last])
def test_pixels(given, format, grad):
    """Far from 0, after a convolution whose output may lie in another way; y lies as the op's, and the residual's sum.

    Channels few enough for Inductor to unroll an eighth of them.
    """
    x, w, b = torch.randn(2, 40, 6, 5).to(memory_format=given), torch.rand(40), torch.randn(40)
    kernel = torch.eye(40)[:, :, None, None]

    def run(x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
        x = 100 + torch.nn.functional.conv2d(x, kernel)
        return F.layer_norm_2d(x, w.to(x), b.to(x), residual=x, memory_format=format)

    torch._dynamo.reset()
    with torch.set_grad_enabled(grad):
        found, eager = torch.compile(run, fullgraph=True)(x, kernel), run(x, kernel)
    for y, op, want in zip(found, eager, run(x.double(), kernel.double()), strict=True):
        assert (y - want).abs().max() <= 2 * (op - want).abs().max() + 1e-6 * want.abs().max()
        assert y.stride() == op.stride()


def test_rows_of_one_number():
    """Of which rounding may leave a variance below 0."""
    x = (1e12 * torch.rand(256, 1)).repeat(1, 1000)
    torch._dynamo.reset()
    with torch.no_grad():
        y = torch.compile(lambda x: F.layer_norm(x, 1000), fullgraph=True)(x)
    assert y.isfinite().all()
