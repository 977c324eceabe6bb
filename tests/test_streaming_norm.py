"""Streaming Normalization against bookkeeping by hand."""

import numpy as np
import pytest
import torch
from common import call, every_target, leaves, need, small
from streaming_by_hand import CURRENT, OP, PAPER, layer, numbers, step
from torch.autograd import gradgradcheck

import normkernels as nk
from normkernels.cases._channels import last
from normkernels.ops._streaming_norm_recipe import streaming_norm_bwd


class Memory:
    """One statistic's long and short term: what arrives, and what is used of it."""

    def __init__(self, weights, old, new):
        self.weights, self.kappa = weights, (old, new)
        self.long, self.arrived, self.changed = None, [], False

    def arrive(self, s):
        if self.changed:
            short = np.mean(self.arrived, 0)
            self.long = short if self.long is None else self.kappa[0] * self.long + self.kappa[1] * short
            self.arrived, self.changed = [], False
        self.arrived.append(s)
        short = np.mean(self.arrived, 0)
        terms = short if self.long is None else self.long, short, s
        return sum(w * t for w, t in zip(self.weights, terms, strict=False))


class ByHand:
    """Forward and backward in numpy with explicit gradients; x, dy: (N, C, D)."""

    def __init__(self, module):
        self.w, self.b = (t.numpy(force=True).astype(np.float64)[:, None] for t in (module.weight, module.bias))
        self.p, self.eps = module.p, module.eps
        of_statistics, of_gradients = module.kappa[:2], module.kappa[2:]
        self.mean, self.scale = (Memory(module.alpha, *of_statistics) for _ in range(2))
        self.of_mean, self.of_scale = (Memory(module.beta, *of_gradients) for _ in range(2))

    def weights_changed(self):
        for memory in (self.mean, self.scale, self.of_mean, self.of_scale):
            memory.changed = True

    def forward(self, x):
        m = x.mean((0, 2))
        s = ((abs(x - m[:, None]) ** self.p).mean((0, 2)) + self.eps) ** (1 / self.p)
        used = self.mean.arrive(m)[:, None], self.scale.arrive(s)[:, None]
        y = (x - used[0]) / used[1]
        return self.w * y + self.b, (x, m[:, None], s[:, None], used[1], y)

    def backward(self, record, dy):
        (x, m, s, sigma, y), g = record, self.w * dy
        g_mean = self.of_mean.arrive(-(g / sigma).sum((0, 2)))[:, None]
        g_scale = self.of_scale.arrive(-(g * y / sigma).sum((0, 2)))[:, None]
        M, deviation = x.shape[0] * x.shape[2], abs(x - m) ** (self.p - 1) * np.sign(x - m)
        of_x = s ** (1 - self.p) / M * (deviation - deviation.mean((0, 2), keepdims=True))
        return g / sigma + g_mean / M + g_scale * of_x, (dy * y).sum((0, 2)), dy.sum((0, 2))


def planes(t):
    return t.detach().cpu().double().numpy().reshape(*t.shape[:2], -1)


def agree(got, want, tolerance):
    for a, b in zip(got, want, strict=True):
        b = torch.from_numpy(np.asarray(b)).reshape(a.shape)
        assert (a.detach().cpu().double() - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("settings", [PAPER, CURRENT, {}], ids=["paper", "current", "default"])
@every_target
def test_bookkeeping(backend, device, settings, p, dtype):
    """Updates of the weights, micro-batches between them, and in each two steps of a recurrent loop."""
    need(OP, backend, device)
    for shape, layout in (((6, 5), None), ((3, 5, 3, 2), last)):
        module = layer(5, len(shape) - 2 or 1, dtype, p=p, backend=backend, **settings).to(device)
        hand, seed, tolerance = ByHand(module), 0, 1e-11 if dtype == torch.float64 else 2e-5
        for micro_batches in (3, 1, 2):
            for i in range(micro_batches):
                xs = [numbers(shape[0] + i, *shape[1:], seed=seed + t).to(device, dtype) for t in range(2)]
                dys = [numbers(*x.shape, seed=seed + 50, shift=0.3).to(device, dtype) for x in xs]
                xs = [(layout(x) if layout else x).requires_grad_() for x in xs]
                ys = [module(x) for x in xs]
                want, records = zip(*(hand.forward(planes(x)) for x in xs), strict=True)
                agree(ys, want, tolerance)
                for t in (1, 0):
                    got = torch.autograd.grad(ys[t], [xs[t], module.weight, module.bias], dys[t])
                    agree(got, hand.backward(records[t], planes(dys[t])), tolerance)
                seed += 2
            module.weights_changed()
            hand.weights_changed()
            if hand.mean.long is not None:
                agree([module.long_term[0]], [enter(hand.mean)], tolerance)
                agree([module.long_term[3]], [enter(hand.of_scale)], tolerance)


def enter(memory):
    """The long term that the next arrival will find."""
    short = np.mean(memory.arrived, 0)
    return short if memory.long is None else memory.kappa[0] * memory.long + memory.kappa[1] * short


@every_target
def test_batch_norm_is_a_special_case(backend, device):
    """alpha = (0, 1), beta = (0, 0, 1), one mini-batch for each update: forward and backward; also at N = 16."""
    need(OP, backend, device)
    ours = layer(5, backend=backend, **CURRENT).to(device)
    theirs = nk.BatchNorm1d(5, dtype=torch.float64, device=device)
    theirs.load_state_dict({k: ours.state_dict()[k] for k in ("weight", "bias")}, strict=False)
    for i in range(3):
        x = numbers(16, 5, seed=i).to(device)
        dy = numbers(16, 5, seed=9).to(device)
        torch.testing.assert_close(step(ours, x, dy), step(theirs, x, dy))
        ours.weights_changed()


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("counts", [[[0.0, 0], [0, 0]], [[2, 3], [1, 2]]], ids=["first", "later"])
def test_second_derivatives(p, counts):
    """Of the gradients as functions of input, weight and bias, with the memory before the call for a constant."""
    sample = small(OP, 2, 3, torch.float64, added=True, activation="tanh")
    w, s = numbers(2, 4, 3).abs() + 0.5
    state = {"long_term": w, "short_term": s, "counts": torch.tensor(counts, dtype=torch.float64)}
    named = leaves(OP, sample)

    def function(*tensors):
        memory = {k: t.clone() for k, t in state.items()}
        return call(OP, sample, "reference", p=p, **memory, **dict(zip(named, tensors, strict=True)))

    assert gradgradcheck(function, list(named.values()))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@every_target
def test_backward_with_statistics_of_more_than_is_here(backend, device, p):
    """As where they span processes: found and the mean deviation are not those of x, and what is taken is given."""
    need(OP, backend, device)
    torch.manual_seed(0)
    (x, dy), (found, used) = torch.randn(2, 3, 4, 5, device=device), torch.rand(2, 2, 4, device=device) + 0.5
    taken, lean = torch.randn(2, 4, device=device), None if p == 2 else torch.randn(4, device=device)
    dx, new, nothing = torch.empty_like(x), torch.empty_like(found), torch.zeros_like(found)
    streaming_norm_bwd(
        dy, x, None, None, None, found, used, lean, taken, nothing, taken.new_tensor([0.0, 1.0]), dx, None, None, None,
        new, 1.0, 0.0, 0.0, p, 1e-5, "identity", 0.0, False, backend,
    )  # fmt: skip
    v = x - found[0, :, None]
    away = v.abs().pow(p - 1) * v.sign() - (0 if lean is None else lean[:, None])
    of_mean, of_scale = taken / 15  # values of a channel
    want = dy / used[1, :, None] + of_mean[:, None] + (of_scale * found[1].pow(1 - p))[:, None] * away
    torch.testing.assert_close(dx, want, rtol=1e-5, atol=1e-5)
