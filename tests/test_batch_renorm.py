"""Batch Renormalization against autograd of the paper's formula."""

import pytest
import torch
from common import every_target, need
from renorm_paper import NARROW, layer, numbers

import normkernels as nk
from normkernels.cases import OPS
from normkernels.cases._channels import last

OP = OPS["batch_renorm"]


class Paper:
    """Algorithm 1, with a state of its own."""

    def __init__(self, of, r_max, d_max, device="cpu"):
        C = of.num_features
        self.of, self.r_max, self.d_max = of, r_max, d_max
        self.mean, self.std = (t.double().to(device) for t in (torch.zeros(C), torch.ones(C)))

    def __call__(self, x):
        dims, of = [0, *range(2, x.dim())], self.of
        v = [1, -1, *[1] * (x.dim() - 2)]
        mean = x.mean(dims)
        std = torch.sqrt((x - mean.view(v)).square().mean(dims) + of.eps)
        r = (std / self.std).clamp(1 / self.r_max, self.r_max).detach()
        d = ((mean - self.mean) / self.std).clamp(-self.d_max, self.d_max).detach()
        self.mean = self.mean + of.momentum * (mean.detach() - self.mean)
        self.std = self.std + of.momentum * (std.detach() - self.std)
        xhat = (x - mean.view(v)) / std.view(v) * r.view(v) + d.view(v)
        return xhat * of.weight.double().view(v) + of.bias.double().view(v)


def gradients(y, x, module, dy):
    return [y.detach(), *torch.autograd.grad(y, [x, module.weight, module.bias], dy)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bounds", [(3.0, 5.0), (1.3, 0.4), (1.0, 0.0)], ids=str)
@every_target
def test_against_the_paper(backend, device, bounds, dtype):
    """y, every gradient and both statistics, over steps with batches of varying size, in every layout."""
    need(OP, backend, device)
    for shape, layout in (((6, 5), None), ((3, 5, 7), None), ((4, 5, 3, 2), None), ((4, 5, 3, 2), last)):
        module = layer(5, len(shape) - 2 or 1, dtype, r_max=bounds[0], d_max=bounds[1], momentum=0.3, backend=backend)
        module, paper = module.to(device), Paper(module, *bounds, device)
        for i in range(4):
            x = numbers(shape[0] + i, *shape[1:], seed=i).to(device, dtype)
            x = (layout(x) if layout else x).requires_grad_()
            dy, wide = torch.randn_like(x), x.detach().double().requires_grad_()
            got = gradients(module(x), x, module, dy)
            want = gradients(paper(wide), wide, module, dy.double())
            close = {} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-5}
            got += [module.running_mean, module.running_std]
            torch.testing.assert_close(got, [t.to(dtype) for t in (*want, paper.mean, paper.std)], **close)


RAMP = {0: (1, 0), 4999: (1, 0), 5000: (1, 0), 22500: (2, 4.375), 25000: (1 + 2 * 20 / 35, 5), 40000: (3, 5),
        10**6: (3, 5)}  # fmt: skip


@pytest.mark.parametrize("step", RAMP)
def test_ramp(step):
    """The paper's schedule, whatever the batch size, and in the call itself."""
    module = layer(momentum=0.3, warmup_steps=5000, r_ramp_steps=35000, d_ramp_steps=20000)
    module.num_batches_tracked.fill_(step)
    torch.testing.assert_close(torch.stack(module.bounds()), torch.tensor(RAMP[step]).double())
    x = 1e3 * numbers(64, 5)  # r and d reach any bound
    torch.testing.assert_close(module(x), Paper(module, *RAMP[step])(x))
    assert module.num_batches_tracked == step + 1


def test_batch_norm_is_the_first_part_of_the_ramp():
    """During the warm-up, and for r_max = 1, d_max = 0 always: the bits of batch norm's gradients but for rounding."""
    ours, batch_norm = layer(warmup_steps=5000), nk.BatchNorm1d(5, dtype=torch.float64)
    plain = layer(r_max=1.0, d_max=0.0)
    batch_norm.load_state_dict({k: v for k, v in ours.state_dict().items() if k in ("weight", "bias")}, strict=False)
    x, dy = numbers(8, 5).requires_grad_(), numbers(8, 5, seed=1)
    want = gradients(batch_norm(x), x, batch_norm, dy)
    for module in (ours, plain):
        torch.testing.assert_close(gradients(module(x), x, module, dy), want)


@every_target
def test_training_is_inference(backend, device):
    """What the paper is for: both give the same output where nothing is clipped, for a large eps too (CrossQ, SB3)."""
    need(OP, backend, device)
    module = layer(r_max=1e6, d_max=1e6, eps=1e-3, backend=backend).to(device)
    for i in range(3):
        module(numbers(16, 5, seed=i, scale=0.1).to(device))
    x = numbers(8, 5, seed=9, scale=0.1).to(device)
    want = module.eval()(x)
    torch.testing.assert_close(module.train()(x), want)


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1), (1, 5, 1, 1)])
def test_one_value_per_channel(shape):
    """It would train nothing, silently; inference of it is fine."""
    module = layer(dims=max(1, len(shape) - 2))
    rule = r"input must have more than one value per channel in training \(OnlineNorm, .* need no batch\)"
    with pytest.raises(ValueError, match=rf"^batch_renorm: {rule}, got shape .*1, 5"):
        module(torch.ones(shape, dtype=torch.float64))
    assert module.num_batches_tracked == 1
    assert module.eval()(torch.ones(shape, dtype=torch.float64)).shape == shape


def test_the_function_without_a_count():
    """It has the full bounds at once, and the count of others is not needed."""
    module, x = layer(**NARROW), numbers(8, 5)
    mean, std = torch.zeros(5).double(), torch.ones(5).double()
    y = nk.functional.batch_renorm(x, mean, std, module.weight, module.bias, True, 0.01, **NARROW)
    torch.testing.assert_close(y, Paper(module, 1.3, 0.4)(x))


def test_second_derivatives():
    """Those of the formula with r and d for constants, which torch finds by differentiating it twice."""
    module = layer(momentum=0.3, **NARROW)
    x, dy = numbers(6, 5).requires_grad_(), numbers(6, 5, seed=1).requires_grad_()
    found = []
    for f in (module, Paper(module, 1.3, 0.4)):
        grads = torch.autograd.grad(torch.tanh(f(x)), [x, module.weight, module.bias], dy, create_graph=True)
        total = sum(g.square().sum() for g in grads)
        found.append([*grads, *torch.autograd.grad(total, [x, dy, module.weight, module.bias])])
    torch.testing.assert_close(*found)


# changed settings of the module or arguments of the function, the text after the name
WRONG = {"r_max": (0.5, "be at least 1, got 0.5"), "d_max": (-1.0, "be at least 0, got -1.0"),
         "warmup_steps": (-1, "be at least 0, got -1"), "r_ramp_steps": (-5, "be at least 0, got -5")}  # fmt: skip


@pytest.mark.parametrize("argument", WRONG)
def test_wrong_bounds(argument):
    value, message = WRONG[argument]
    with pytest.raises(ValueError, match=f"^BatchRenorm3d: {argument} must {message}$"):
        nk.BatchRenorm3d(3, **{argument: value})
    with pytest.raises(ValueError, match=f"^batch_renorm: {argument} must {message}$"):
        nk.functional.batch_renorm(torch.ones(4, 3), torch.zeros(3), torch.ones(3), **{argument: value})


@pytest.mark.parametrize("argument", ["running_mean", "running_std"])
def test_wrong_statistics(argument):
    given = {"running_mean": torch.zeros(3), "running_std": torch.ones(3)}
    for value, rule in (
        (None, "be given, got None"),
        (torch.ones(4), r"have shape \(3,\), got \(4,\)"),
        (torch.ones(3).half(), "have input's dtype torch.float32, got torch.float16"),
        (torch.ones(3, device="meta"), "be on input's device cpu, got meta"),
    ):
        with pytest.raises(ValueError, match=f"^batch_renorm: {argument} must {rule}$"):
            nk.functional.batch_renorm(torch.ones(4, 3), **(given | {argument: value}))
