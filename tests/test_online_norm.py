"""Online Normalization against the paper's loop in numpy."""

import numpy as np
import pytest
import torch
from common import call, every_target, leaves, need, scanned, small
from online_loop import GUARDS, OP, SETTINGS, STATE, numbers, ours, start
from torch.autograd import gradgradcheck

from normkernels.cases._channels import last

ALPHAS = (0.5, 0.9, 0.99, 0.999, 0.9999)


class Loop:
    """One sample after another, in float64 or another dtype; x, dy: (N, C, D)."""

    def __init__(self, weight, bias, state, dtype=np.float64, **settings):
        self.w, self.b, *self.state = (t.numpy(force=True).astype(dtype) for t in (weight, bias, *state))
        self.settings = SETTINGS | settings

    def forward(self, x):
        s, (mean, var, *rest), record = self.settings, self.state, []
        a = var.dtype.type(s["alpha_fwd"])
        for sample in x:
            sigma = np.sqrt(var + var.dtype.type(s["eps"]))
            y = (sample - mean[:, None]) / sigma[:, None]
            z = self.w[:, None] * y + self.b[:, None]
            zeta = np.sqrt((z * z).mean() + s["ls_eps"]) if s["guard"] == "layer_scaling" else 1.0
            out = np.clip(z, -s["clamp"], s["clamp"]) if s["guard"] == "clamp" else z / zeta
            record.append((y, sigma, z, zeta, out))
            m = sample.mean(1)
            spread = ((sample - m[:, None]) ** 2).mean(1)
            var = a * var + (1 - a) * spread + a * (1 - a) * (m - mean) ** 2
            mean = a * mean + (1 - a) * m
        self.state = [mean, var, *rest]
        return np.stack([out for *_, out in record]), record

    def backward(self, record, dy):
        s, (*statistics, u, e) = self.settings, self.state
        p, dxs, dw, db = 1 - s["alpha_bkw"], [], np.zeros_like(self.w), np.zeros_like(self.b)
        for (y, sigma, z, zeta, out), grad in zip(record, dy, strict=True):
            if s["guard"] == "clamp":
                grad = grad * (abs(z) <= s["clamp"])
            elif s["guard"] == "layer_scaling":
                grad = (grad - out * (grad * out).mean()) / zeta
            dw, db, g = dw + (grad * y).sum(1), db + grad.sum(1), self.w[:, None] * grad
            gain = np.minimum(p, 1 / (y * y).mean(1)) if s["stable"] else np.full_like(u, p)
            h = g - (gain * e)[:, None] * y
            e = e + (h * y).mean(1)
            dxs.append(h / sigma[:, None] - p * u[:, None])
            u = u + dxs[-1].mean(1)
        self.state = [*statistics, u, e]
        return np.stack(dxs), dw, db


def agree(got, want, tolerance):
    for name, a, b in zip(("y", "dx", "dweight", "dbias", *STATE), got, want, strict=False):
        b = torch.as_tensor(np.asarray(b)).reshape(a.shape)
        error = (a.cpu().double() - b).abs().max() / b.abs().max()
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


def steps(batches, D, C, dtype, backend, device, layout=torch.Tensor.contiguous, **settings):
    """Forward and backward on batches of these sizes, ours and the loop's; each result of each step must agree."""
    weight, bias, *state = start(C, dtype, device)
    loop = Loop(weight, bias, state, **settings)
    for i, n in enumerate(batches):
        x, dy = numbers(n, C, *D, seed=i, scale=1.5, shift=0.5).to(dtype), numbers(n, C, *D, seed=100 + i).to(dtype)
        got = ours(layout(x.to(device)), dy.to(device), weight, bias, state, backend, **settings)
        y, record = loop.forward(x.double().numpy().reshape(n, C, -1))
        grads = loop.backward(record, dy.double().numpy().reshape(n, C, -1))
        agree([*got, *state], [y, *grads, *loop.state], 1e-9 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("stable", [False, True], ids=["exact", "stable"])
@pytest.mark.parametrize("guard", GUARDS)
@every_target
def test_against_the_loop(backend, device, guard, stable, dtype):
    """Every guard; batches of varying size; (N, C), images and images with channels last."""
    need(OP, backend, device)
    if scanned(OP, backend, device) and (dtype == torch.float32 or stable != (guard is None)):
        pytest.skip("half of them, where they take seconds")
    settings = {"guard": guard, "stable": stable, "alpha_bkw": 0.5 if stable else 0.95}
    many = 12 if scanned(OP, backend, device) else 34
    steps((5, 1, many), (), 7, dtype, backend, device, **settings)
    steps((5, 1, 6), (2, 3), 7, dtype, backend, device, **settings)
    steps((5, 1, 3), (3, 3), 17, dtype, backend, device, last, **settings)


@pytest.mark.parametrize("backward", ALPHAS)
@pytest.mark.parametrize("forward", ALPHAS)
@every_target
def test_decays(backend, device, forward, backward):
    """Every pair of decays, over calls; with one value in a sample those whose controller is stable."""
    need(OP, backend, device)
    if scanned(OP, backend, device) and {forward, backward} - {0.5, 0.9999}:
        pytest.skip("the ends of the range, where they take seconds")
    decays = {"alpha_fwd": forward, "alpha_bkw": backward}
    batches = (8, 5) if scanned(OP, backend, device) else (33, 20)
    steps(batches, (25,), 3, torch.float64, backend, device, **decays)
    if backward >= 0.9 and forward >= 0.9:
        steps(batches, (), 3, torch.float64, backend, device, **decays)


@pytest.mark.parametrize("D", [(), (5,)], ids=["1", "5"])
@every_target
def test_many_samples(backend, device, D):
    need(OP, backend, device)
    if scanned(OP, backend, device):
        pytest.skip("minutes of interpretation")
    for dtype in (torch.float64, torch.float32):
        steps((4096, 7), D, 3, dtype, backend, device, alpha_fwd=0.999, alpha_bkw=0.99)


@pytest.mark.parametrize("backend", ["triton", "native"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_far_from_zero(backend, device):
    """A variance of 4 about 1e4 at alpha 0.9999: far closer than the paper's loop in the same float32."""
    need(OP, backend, device)
    if scanned(OP, backend, device):
        pytest.skip("minutes of interpretation")
    x = numbers(4096, 2, 25, scale=2.0, shift=1e4).float()
    state = [torch.full((2,), v) for v in (1e4, 4.0, 0.0, 0.0)]
    settings = {"alpha_fwd": 0.9999}
    exact, rough = (Loop(state[1], state[0], state, dtype, **settings) for dtype in (np.float64, np.float32))
    exact.forward(x.numpy().astype(np.float64))
    rough.forward(x.numpy())
    state = [t.to(device) for t in state]
    with torch.no_grad():
        OP.function(x.to(device), *state, training=True, **settings, backend=backend)
    error, of_loop = (abs(v / exact.state[1] - 1).max() for v in (state[1].cpu().numpy(), rough.state[1]))
    assert error < min(of_loop / 10, 1e-4), (error, of_loop)


@every_target
def test_splitting_a_batch_changes_nothing(backend, device):
    need(OP, backend, device)
    x, dy = (numbers(11, 6, 3, seed=i).to(device) for i in (0, 1))
    whole, parts = start(6, device=device), start(6, device=device)
    y, dx, *of_parameters = ours(x, dy, *whole[:2], whole[2:], backend, guard="layer_scaling")
    pieces = [
        ours(a, b, *parts[:2], parts[2:], backend, guard="layer_scaling")
        for a, b in zip(x.split([1, 3, 7]), dy.split([1, 3, 7]), strict=True)
    ]
    ys, dxs, *sums = zip(*pieces, strict=True)
    got = [torch.cat(ys), torch.cat(dxs), *(sum(s) for s in sums), *parts[2:]]
    torch.testing.assert_close(got, [y, dx, *of_parameters, *whole[2:]], rtol=1e-12, atol=1e-12)


@every_target
def test_calls_before_their_backwards(backend, device):
    """The statistics go on with the calls, the accumulators with the backwards, which come last call first."""
    need(OP, backend, device)
    weight, bias, *state = start(5, device=device)
    loop = Loop(weight, bias, state)
    named = dict(zip(STATE, state, strict=True))
    xs = [numbers(6, 5, 3, seed=i).to(device).requires_grad_() for i in (0, 1)]
    dys = [numbers(6, 5, 3, seed=10 + i).to(device) for i in (0, 1)]
    ys = [OP.function(x, **named, weight=weight, bias=bias, training=True, **SETTINGS, backend=backend) for x in xs]
    dxs = torch.autograd.grad(ys[1], xs[1], dys[1]) + torch.autograd.grad(ys[0], xs[0], dys[0])
    (_, first), (_, second) = (loop.forward(x.numpy(force=True)) for x in xs)
    want = [loop.backward(r, dy.cpu().numpy())[0] for r, dy in ((second, dys[1]), (first, dys[0]))]
    for got, dx in zip((*dxs, *state), (*want, *loop.state), strict=True):
        torch.testing.assert_close(got.cpu(), torch.from_numpy(dx))


@pytest.mark.parametrize("guard", GUARDS)
def test_second_derivatives(guard):
    """Of a sample alone, and of several where the statistics stand still: there nothing else depends on x."""
    for rows, alpha in ((1, 0.9), (3, 1.0)):
        sample = small(OP, rows, 4, torch.float64, added=True, activation="tanh")
        settings = {"guard": guard, "alpha_fwd": alpha, "alpha_bkw": 0.2, "clamp": 1.0}
        named = leaves(OP, sample)

        def function(*tensors, sample=sample, named=named, settings=settings):
            state = dict(zip(STATE, start(4)[2:], strict=True))
            return call(OP, sample, "reference", **settings, **state, **dict(zip(named, tensors, strict=True)))

        assert gradgradcheck(function, list(named.values()))
