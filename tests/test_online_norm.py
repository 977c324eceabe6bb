"""Online Normalization against the paper's loop in numpy, and what the paper promises of it."""

import math

import numpy as np
import pytest
import torch
from common import call, every_target, leaves, need, scanned, small
from torch.autograd import gradgradcheck

import normkernels as nk
from normkernels.cases import OPS
from normkernels.cases._channels import last

OP = OPS["online_norm"]
STATE = ("running_mean", "running_var", "epsilon_1", "epsilon_y")
ALPHAS = (0.5, 0.9, 0.99, 0.999, 0.9999)
GUARDS = ("layer_scaling", "clamp", None)
SETTINGS = {
    "alpha_fwd": 0.9,
    "alpha_bkw": 0.95,
    "eps": 1e-5,
    "guard": None,
    "ls_eps": 1e-5,
    "clamp": 1.0,
    "stable": False,
}


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


def numbers(*shape, seed=0, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(C, dtype=torch.float64, device="cpu"):
    """Weight, bias and state of a layer in use: near to what N(0.5, 1.5^2) would leave."""
    w, b, mean, var, u, e = numbers(6, C, seed=7, scale=0.3)
    found = 1 + w, b, 0.5 + mean, 2.25 * torch.exp(var), u, e
    return [t.to(device, dtype, copy=True) for t in found]


def ours(x, dy, weight, bias, state, backend=None, **settings):
    """y, dx, dweight, dbias; the state moves."""
    named = {"input": x, "weight": weight, "bias": bias}
    named = {k: t.detach().requires_grad_() for k, t in named.items()}
    settings = SETTINGS | {"training": True} | settings
    y = OP.function(**named, **dict(zip(STATE, state, strict=True)), **settings, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, list(named.values()), dy)]


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


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of Triton's interpreter
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("D", [(), (4,)], ids=["1", "4"])
@every_target
def test_one_bad_sample_is_left_out(backend, device, D, bad):
    """Of its channel only: later samples see the statistics as if it had not come; so do later gradients."""
    need(OP, backend, device)
    x, dy = (numbers(9, 5, *D, seed=i).to(device, torch.float32) for i in (0, 1))
    kept = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8], device=device)
    w, b, *state = start(5, torch.float32, device)
    w2, b2, *twin = start(5, torch.float32, device)
    broken, torn = x.clone(), dy.clone()
    broken[3, 2], torn[3, 2] = bad, 0.0  # 0 * inf is nan too
    got = ours(broken, torn, w, b, state, backend)
    want = ours(x[kept], dy[kept], w2, b2, twin, backend)
    rest = [0, 1, 3, 4]
    torch.testing.assert_close(got[0][kept][:, 2], want[0][:, 2])
    torch.testing.assert_close(got[1][kept][:, 2], want[1][:, 2])
    torch.testing.assert_close([t[2] for t in state], [t[2] for t in twin])
    whole = start(5, torch.float32, device)
    plain = ours(x, torn, *whole[:2], whole[2:], backend)
    for a, c in zip(got[:2], plain[:2], strict=True):
        torch.testing.assert_close(a[:, rest], c[:, rest])
    torch.testing.assert_close([t[rest] for t in state], [t[rest] for t in whole[2:]])


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of Triton's interpreter
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("D", [(), (4,)], ids=["1", "4"])
@every_target
def test_one_bad_gradient_is_left_out(backend, device, D, bad):
    """What dynamic loss scaling makes on purpose does not stay in the accumulators."""
    need(OP, backend, device)
    x, dy = (numbers(9, 5, *D, seed=i).to(device) for i in (0, 1))
    w, b, *state = start(5, device=device)
    settings = {"alpha_fwd": 1.0}  # else the next samples are normalised otherwise without the bad one
    torn = dy.clone()
    torn[3, 2] = bad
    got = ours(x, torn, w, b, state, backend, **settings)
    kept = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8], device=device)
    w2, b2, *twin = start(5, device=device)
    want = ours(x[kept], dy[kept], w2, b2, twin, backend, **settings)
    torch.testing.assert_close(got[1][kept][:, 2], want[1][:, 2])
    torch.testing.assert_close([t[2] for t in state], [t[2] for t in twin])
    assert not got[1][3, 2].isfinite().all()
    assert all(t.isfinite().all() for t in (got[0], *state))


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


# changed arguments, the text after "online_norm: "
WRONG = {
    "alpha": ({"alpha_fwd": 1.5}, r"alpha_fwd must be in \[0, 1\], got 1.5"),
    "alpha-nan": ({"alpha_bkw": math.nan}, r"alpha_bkw must be in \[0, 1\], got nan"),
    "guard": ({"guard": "scale"}, "guard must be one of 'layer_scaling', 'clamp', None, got 'scale'"),
    "clamp": ({"clamp": 0.0}, "clamp must be positive, got 0.0"),
    "no-accumulator": ({"epsilon_y": None}, "epsilon_y must be given in training, got None"),
    "accumulator-shape": ({"epsilon_1": torch.zeros(5)}, r"epsilon_1 must have shape \(33,\), got \(5,\)"),
    "accumulator-dtype": ({"epsilon_1": torch.zeros(33).half()}, "epsilon_1 must have input's dtype .*, got .*float16"),
    "no-mean": ({"running_mean": None}, "running_mean must be given where no statistics are taken .*, got None"),
    "var-shape": ({"running_var": torch.ones(5)}, r"running_var must have shape \(33,\), got \(5,\)"),
    "one-dim": ({"input": torch.ones(33)}, r"input must have at least 2 dimensions .*, got shape \(33,\)"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments(wrong):
    changes, message = WRONG[wrong]
    sample = small(OP)
    before = {k: sample.tensors[k].clone() for k in STATE}
    with pytest.raises(ValueError, match=f"^online_norm: {message}$"):
        OP.function(**(sample.present() | sample.call | changes))
    assert all(torch.equal(sample.tensors[k], t) for k, t in before.items())


def test_wrong_settings_of_the_module():
    for settings, message in (({"alpha_fwd": -1}, "alpha_fwd must be"), ({"guard": ""}, "guard must be one of")):
        with pytest.raises(ValueError, match=f"^OnlineNorm2d: {message}"):
            nk.OnlineNorm2d(3, **settings)
