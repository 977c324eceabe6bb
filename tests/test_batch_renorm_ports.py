"""What public ports of Batch Renormalization got wrong."""

import pytest
import torch
from renorm_paper import NARROW, layer, numbers

import normkernels as nk


def test_statistics_from_before_the_batch():
    """enhuiz updates first: with momentum 1, r would then be 1 and d 0 always."""
    module, x = layer(momentum=1.0), numbers(16, 5)
    want = x * module.weight + module.bias  # nothing clipped, statistics 0 and 1
    module.r_max = module.d_max = 1e6
    torch.testing.assert_close(module(x), want)
    torch.testing.assert_close(module.running_mean, x.mean(0))


def test_moving_standard_deviation():
    """Not the variance (chainer, keras-contrib, SuperbTUM), biased (SB3, mf1024), over space too (SB3, TorchRL)."""
    module, x = layer(dims=2, momentum=0.25), numbers(4, 5, 3, 2)
    module(x)
    std = torch.sqrt(x.var((0, 2, 3), correction=0) + module.eps)
    torch.testing.assert_close(module.running_std, 0.75 + 0.25 * std)
    torch.testing.assert_close(module.running_mean, 0.25 * x.mean((0, 2, 3)))


def test_eps_is_inside_the_root():
    """ludvb adds it to the deviation; Keras takes it out again at inference."""
    module = layer(momentum=1.0, eps=1e-3)
    module(torch.full((8, 5), 3.0, dtype=torch.float64))
    torch.testing.assert_close(module.running_std, torch.full((5,), 1e-3, dtype=torch.float64).sqrt())
    x = numbers(3, 5)
    want = (x - 3) / 1e-3**0.5 * module.weight + module.bias
    torch.testing.assert_close(module.eval()(x), want)


def test_first_state_and_where_it_lives():
    """Mean 0 and deviation 1 (mf1024 has them swapped), one pair (Keras has two), in state_dict, moved by .to()."""
    module = nk.BatchRenorm1d(3)
    assert list(module.state_dict()) == ["weight", "bias", "running_mean", "running_std", "num_batches_tracked"]
    assert torch.equal(module.running_mean, torch.zeros(3))
    assert torch.equal(module.running_std, torch.ones(3))
    assert all(t.is_meta for t in module.to("meta").state_dict().values())


def test_inference_is_inference():
    """Whatever the step (keras-contrib returned the training output), and it updates nothing (mf1024 did)."""
    module, x = layer(momentum=0.3, **NARROW), numbers(8, 5)
    module(x)
    mean, std = module.running_mean.clone(), module.running_std.clone()
    for step in (0, 10**6):
        module.num_batches_tracked.fill_(step)
        torch.testing.assert_close(module.eval()(x), (x - mean) / std * module.weight + module.bias)
    assert torch.equal(module.running_mean, mean)
    assert torch.equal(module.running_std, std)
    assert module.num_batches_tracked == 10**6


def test_corrections_stay_within_their_bounds_for_ever():
    """TorchRL throws its clamp away: gains of 1.9, 2.9, 3.9, 4.9 after one to four times the warm-up."""
    for times in (1, 2, 3, 4, 100):
        module = layer(1, warmup_steps=10, r_ramp_steps=10, d_ramp_steps=10)
        module.num_batches_tracked.fill_(10 * times)
        x = numbers(64, 1, scale=100.0, shift=0.0)
        gain = (module(x) / module.weight).std(0, correction=0).item()  # of xhat, whose deviation is 1
        assert gain == pytest.approx(1 if times == 1 else 3, rel=1e-6)


def test_the_ramp_is_linear_and_has_no_switch():
    """keras-contrib's is logistic, CrossQ's one jump."""
    module = nk.BatchRenorm1d(1, warmup_steps=100, r_ramp_steps=200, d_ramp_steps=200, dtype=torch.float64)
    found = []
    for step in range(0, 400, 50):
        module.num_batches_tracked.fill_(step)
        found.append([float(b) for b in module.bounds()])
    assert found == [[1, 0], [1, 0], [1, 0], [1.5, 1.25], [2, 2.5], [2.5, 3.75], [3, 5], [3, 5]]
