"""Streaming Normalization against bookkeeping by hand, and against what the public code gets wrong."""

import numpy as np
import pytest
import torch
from common import call, every_target, leaves, need, small
from torch.autograd import gradgradcheck

import normkernels as nk
from normkernels.cases import OPS
from normkernels.cases._channels import last

OP = OPS["streaming_norm"]
STATE = ("long_term", "short_term", "counts")
PAPER = {"alpha": (0.5, 0.5), "beta": (0.5, 0.2, 0.3), "kappa": (0.6, 0.4, 0.8, 0.2)}
CURRENT = {"alpha": (0.0, 1.0), "beta": (0.0, 0.0, 1.0)}


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


def layer(C=5, dims=1, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    module = getattr(nk, f"StreamingNorm{dims}d")(C, dtype=dtype, **settings)
    with torch.no_grad():
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_()
    return module


def numbers(*shape, seed=0, scale=2.0, shift=1.5):
    return shift + scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(module, x, dy=None):
    """y and every gradient."""
    x = x.detach().requires_grad_()
    y = module(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype) if dy is None else dy
    return [y.detach(), *torch.autograd.grad(y, [x, module.weight, module.bias], dy)]


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


def test_micro_batches_share_one_average_after_every_update():
    """The public code counts to 1 for ever after the first step of the optimizer."""
    module = layer()
    for _ in range(3):
        xs = [numbers(8, 5, seed=i) for i in range(4)]
        for i, x in enumerate(xs):
            step(module, x)
            want = torch.stack([t.mean(0) for t in xs[: i + 1]]).mean(0)
            torch.testing.assert_close(module.short_term[0], want)
            assert module.counts[:, 0].tolist() == [i + 1, i + 1]
        module.weights_changed()


def test_nothing_but_weight_and_bias_is_trained():
    """No detector that clipping, weight decay and Adam would see."""
    assert [name for name, _ in layer().named_parameters()] == ["weight", "bias"]
    assert not list(nk.StreamingNorm1d(3, affine=False).parameters())


def test_frozen_weights_and_zero_steps_are_updates_too():
    """Nothing is read off the weights: weights_changed() is enough."""
    module = layer()
    for p in module.parameters():
        p.requires_grad_(False)
    module(numbers(8, 5))
    short = module.short_term.clone()
    module.weights_changed()
    assert torch.equal(module.long_term[:2], short[:2])
    assert module.counts.tolist() == [[0, 1], [0, 0]]  # no gradient came


def test_all_state_is_in_the_state_dict():
    """A model that is loaded goes on as the one that was saved would have."""
    first, second = layer(**PAPER), layer(**PAPER)
    for i in range(3):
        step(first, numbers(8, 5, seed=i))
        first.weights_changed()
    step(first, numbers(8, 5, seed=3))
    second.load_state_dict(first.state_dict())
    for i in range(3):
        x = numbers(8, 5, seed=10 + i)
        assert all(map(torch.equal, step(first, x), step(second, x)))
        first.weights_changed()
        second.weights_changed()
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_to_moves_all_state():
    module = layer(dtype=torch.float32)
    assert all(t.is_meta for t in layer().to("meta").state_dict().values())
    assert all(t.dtype == torch.float64 for t in module.double().state_dict().values())
    names = {k for k, v in vars(module).items() if isinstance(v, torch.Tensor)}
    assert not names, "a tensor that is neither parameter nor buffer"


def test_eval_uses_the_long_term_only():
    """Not a mixture with what the last training batch left; and never the statistics of the batch it gets."""
    module = layer(**PAPER)
    x = numbers(4, 5, seed=5, scale=3.0)
    torch.testing.assert_close(module.eval()(x), x * module.weight + module.bias)  # a new model: mean 0, scale 1
    step(module.train(), numbers(8, 5))
    for updates in range(2):  # before the first update the short term stands in
        memory = module.long_term if updates else module.short_term
        mean, scale = memory[:2].clone()
        if updates:
            step(module.train(), numbers(8, 5, seed=2))  # a short term that must not be seen
        torch.testing.assert_close(module.eval()(x), (x - mean) / scale * module.weight + module.bias)
        torch.testing.assert_close([module.running_mean, module.running_scale], [mean, scale])
        module.weights_changed()


def test_weights_changed_twice_changes_nothing():
    module = layer(**PAPER)
    module.weights_changed()
    assert torch.equal(module.long_term, torch.tensor([0.0, 1, 0, 0]).double()[:, None].expand(4, 5))
    for _ in range(2):
        step(module, numbers(8, 5))
        module.weights_changed()
    before = [t.clone() for t in module.buffers()]
    module.weights_changed()
    assert all(map(torch.equal, module.buffers(), before))


def test_follow():
    """Every step of the optimizer, whatever it does to the weights, until the handle is removed."""
    module = layer()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    handle = module.follow(optimizer)
    for expected in ([0, 1], [0, 2]):
        module(numbers(8, 5)).sum().backward()
        optimizer.step()
        assert module.counts[0].tolist() == expected
    handle.remove()
    module(numbers(8, 5)).sum().backward()
    optimizer.step()
    assert module.counts[0].tolist() == [1, 2]


def test_biased_scale_with_eps_once():
    """The public code takes the unbiased deviation, NaN for one sample, and adds eps twice."""
    module, x = layer(eps=0.1, **CURRENT), numbers(2, 5)
    module(x)
    torch.testing.assert_close(module.short_term[1], torch.sqrt(x.var(0, correction=0) + 0.1))


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1), (1, 5, 1, 1)])
def test_one_value_per_channel(shape):
    module = layer(dims=max(1, len(shape) - 2))
    rule = r"input must have more than one value per channel in training: .* \(OnlineNorm needs one only\)"
    with pytest.raises(ValueError, match=rf"^streaming_norm: {rule}, got shape .*1, 5"):
        module(torch.ones(shape, dtype=torch.float64))
    assert not module.counts.any()
    assert module.eval()(torch.ones(shape, dtype=torch.float64)).shape == shape


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


# changed arguments, the text after the name
WRONG = {
    "p": ({"p": 0.5}, "p must be at least 1, got 0.5"),
    "alpha-sum": ({"alpha": (0.5, 0.6)}, r"alpha must be 2 numbers that add up to 1, got \(0.5, 0.6\)"),
    "alpha-length": ({"alpha": (0.5, 0.2, 0.3)}, r"alpha must be 2 numbers that add up to 1, got \(0.5, 0.2, 0.3\)"),
    "beta-sum": ({"beta": (0.5, 0.5, 0.5)}, r"beta must be 3 numbers that add up to 1, got \(0.5, 0.5, 0.5\)"),
}  # fmt: skip
WRONG_STATE = {
    "no-long-term": ({"long_term": None}, "long_term must be given, got None"),
    "short-term-shape": ({"short_term": torch.zeros(2, 33)}, r"short_term must have shape \(4, 33\), got \(2, 33\)"),
    "counts-shape": ({"counts": torch.zeros(2)}, r"counts must have shape \(2, 2\), got \(2,\)"),
    "counts-int": ({"counts": torch.zeros(2, 2).int()}, "counts must have input's dtype .*, got torch.int32"),
    "long-term-device": (
        {"long_term": torch.zeros(4, 33, device="meta")},
        "long_term must be on input's device cpu, .*",
    ),
}


@pytest.mark.parametrize("wrong", WRONG | WRONG_STATE)
def test_wrong_arguments(wrong):
    changes, message = (WRONG | WRONG_STATE)[wrong]
    sample = small(OP)
    before = {k: sample.tensors[k].clone() for k in STATE}
    with pytest.raises(ValueError, match=f"^streaming_norm: {message}$"):
        OP.function(**(sample.present() | sample.call | changes))
    assert all(torch.equal(sample.tensors[k], t) for k, t in before.items())


@pytest.mark.parametrize("wrong", [*WRONG, "kappa"])
def test_wrong_settings_of_the_module(wrong):
    kappa = {"kappa": (0.7, 0.3, 0.7, 0.4)}, r"kappa\[2:\] must be 2 numbers that add up to 1, got \(0.7, 0.4\)"
    settings, message = (WRONG | {"kappa": kappa})[wrong]
    with pytest.raises(ValueError, match=f"^StreamingNorm2d: {message}$"):
        nk.StreamingNorm2d(3, **settings)


def test_wrong_kappa_of_an_update():
    module = layer()
    with pytest.raises(ValueError, match=r"^streaming_norm_update: kappa must be four numbers, got \(0.7, 0.3\)$"):
        nk.functional.streaming_norm_update(module.long_term, module.short_term, module.counts, (0.7, 0.3))
