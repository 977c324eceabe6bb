"""What the paper promises of Online Normalization: its statistics, its accumulators, its invariances."""

import pytest
import torch
from common import every_target, need
from online_loop import GUARDS, OP, SETTINGS, numbers, ours, start

import normkernels as nk


@every_target
def test_accumulators_telescope(backend, device):
    """What e and u have gained is all that was left: dx on average, and on average times xhat before its last step."""
    need(OP, backend, device)
    x, dy = (numbers(12, 4, 6, seed=i).to(device) for i in (0, 1))
    _, _, *state = start(4, device=device)
    (u, e), one = [t.clone() for t in state[2:]], torch.ones(4, dtype=torch.float64, device=device)
    xhat, dx, *_ = ours(x, dy, one, 0 * one, state, backend)
    gained = dx.mean(2)
    torch.testing.assert_close(state[2] - u, gained.sum(0))
    before = u + gained.cumsum(0) - gained
    sigma = x.std(2) / xhat.std(2)
    h = (dx + 0.05 * before[..., None]) * sigma[..., None]
    torch.testing.assert_close(state[3] - e, (h * xhat).mean(2).sum(0))


@every_target
def test_statistics_are_those_of_the_mixture(backend, device):
    """mu and V + mu^2 are the plain exponential averages of m and s + m^2 (closed form)."""
    need(OP, backend, device)
    x = numbers(12, 4, 6, shift=2.0).to(device)
    _, _, *state = start(4, device=device)
    weights = 0.1 * 0.9 ** torch.arange(11, -1, -1, dtype=torch.float64, device=device)
    mean = 0.9**12 * state[0] + weights @ x.mean(2)
    square = 0.9**12 * (state[1] + state[0] ** 2) + weights @ x.square().mean(2)
    OP.function(x, *state, training=True, alpha_fwd=0.9, backend=backend)
    torch.testing.assert_close(state[:2], [mean, square - mean**2])


@pytest.mark.parametrize("guard", GUARDS)
@every_target
def test_scale_and_shift(backend, device, guard):
    """x -> k x + c with the state (k mu + c, k^2 V) and eps k^2: the same y, and dx and u smaller by k."""
    need(OP, backend, device)
    k, c, factors = 3.0, -7.0, (1, 1 / 3, 1, 1)
    x, dy = (numbers(7, 6, 4, seed=i).to(device) for i in (0, 1))
    w, b, *state = start(6, device=device)
    w2, b2, mean, var, u, e = start(6, device=device)
    moved = [k * mean + c, k * k * var, u / k, e]
    plain = ours(x, dy, w, b, state, backend, guard=guard)
    other = ours(k * x + c, dy, w2, b2, moved, backend, guard=guard, eps=k * k * SETTINGS["eps"])
    torch.testing.assert_close(other, [f * t for f, t in zip(factors, plain, strict=True)])
    torch.testing.assert_close(moved, [k * state[0] + c, k * k * state[1], state[2] / k, state[3]])


@every_target
def test_order_of_channels(backend, device):
    need(OP, backend, device)
    order = torch.tensor([3, 0, 5, 1, 4, 2], device=device)
    x, dy = (numbers(7, 6, 4, seed=i).to(device) for i in (0, 1))
    one, other = start(6, device=device), [t[order] for t in start(6, device=device)]
    y, dx, *rest = ours(x, dy, *one[:2], one[2:], backend, guard="layer_scaling")
    got = ours(x[:, order], dy[:, order], *other[:2], other[2:], backend, guard="layer_scaling")
    torch.testing.assert_close(got, [y[:, order], dx[:, order], *(t[order] for t in rest)])
    torch.testing.assert_close(other[2:], [t[order] for t in one[2:]])


@every_target
def test_the_ends_of_the_decays(backend, device):
    """alpha_fwd = 1 freezes the statistics, bit for bit; alpha_bkw = 1 makes dx = g / sigma."""
    need(OP, backend, device)
    x, dy = (numbers(7, 6, 4, seed=i).to(device) for i in (0, 1))
    w, b, *state = start(6, device=device)
    before = [t.clone() for t in state]
    _, dx, *_ = ours(x, dy, w, b, state, backend, alpha_fwd=1.0, alpha_bkw=1.0)
    assert all(map(torch.equal, state[:2], before[:2]))
    torch.testing.assert_close(dx, dy * (w * torch.rsqrt(before[1] + 1e-5))[:, None])


@every_target
def test_stable(backend, device):
    """The same bits while no gain exceeds 1; inputs 1000 times too large then leave dx about what g / sigma is."""
    need(OP, backend, device)
    x, dy = (numbers(16, 6, seed=i).to(device) for i in (0, 1))
    found = []
    for scale, stable in ((1.0, False), (1.0, True), (1e3, False), (1e3, True)):
        w, b, *state = start(6, device=device)
        state[2:] = torch.zeros(2, 6, dtype=torch.float64, device=device)
        settings = {"alpha_fwd": 0.999, "alpha_bkw": 0.99, "stable": stable}
        found.append([*ours(scale * x, dy, w, b, state, backend, **settings), *state])
    assert all(map(torch.equal, *found[:2]))
    bare = (dy * w).abs().max()  # sigma starts at about 1
    assert found[2][1].abs().max() > 100 * bare
    assert found[3][1].abs().max() < 2 * bare


@every_target
def test_bias_correction(backend, device):
    """The statistics are weighted averages of the first state and every sample; later calls go on where it was."""
    need(OP, backend, device)
    x = numbers(13, 4, 6, shift=2.0).to(device)
    layer = nk.OnlineNorm1d(4, 0.9, bias_correction=True, dtype=torch.float64, device=device, backend=backend)
    for part in x.split([1, 3, 9]):
        layer(part)
    weights = 0.9 ** torch.arange(13, -1, -1, dtype=torch.float64, device=device)
    weights /= weights.sum()
    first = torch.zeros(1, 4, dtype=torch.float64, device=device)
    mean = weights @ torch.cat([first, x.mean(2)])
    square = weights @ torch.cat([first + 1, x.square().mean(2)])
    torch.testing.assert_close([layer.running_mean, layer.running_var], [mean, square - mean**2])
    assert layer.num_samples_tracked == 13
    layer.eval()(x)
    assert layer.num_samples_tracked == 13
    layer.reset_running_stats()
    assert layer.num_samples_tracked == 0


@every_target
def test_without_bias_correction_nothing_is_corrected(backend, device):
    """The first of constant samples far off: V overshoots to about a quarter of the square of the distance."""
    need(OP, backend, device)
    layer = nk.OnlineNorm1d(1, 0.9, dtype=torch.float64, device=device, backend=backend)
    layer(torch.full((7, 1), 100.0, dtype=torch.float64, device=device))
    share = 0.9**7
    torch.testing.assert_close(layer.running_mean, 100 * (1 - layer.running_mean.new_full((1,), share)))
    torch.testing.assert_close(layer.running_var, layer.running_var.new_full((1,), share + 1e4 * share * (1 - share)))


def test_rescaled_accumulators():
    """A loss 1024 times as large, accumulators rescaled: 1024 times the gradients."""
    layers = [nk.OnlineNorm1d(5, 0.9, 0.9, dtype=torch.float64) for _ in range(2)]
    found = []
    for layer, factor in zip(layers, (1.0, 1024.0), strict=True):
        for i, scale in enumerate((1.0, factor)):
            x = numbers(9, 5, seed=i).requires_grad_()
            if scale != 1:
                layer.rescale_accumulators(scale)
            (dx,) = torch.autograd.grad(layer(x), x, scale * numbers(9, 5, seed=10 + i))
        found.append([dx / factor, layer.epsilon_1 / factor, layer.epsilon_y / factor])
    assert all(map(torch.equal, *found))
