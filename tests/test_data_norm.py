"""DataNorm: its three modes against their definitions, constant elements, state, refusals."""

import copy

import pytest
import torch

import normkernels as nk


def data(n=100, dtype=torch.float64):
    """Samples of (2, 3): one element constant, one far off."""
    torch.manual_seed(0)
    x = torch.randn(n, 2, 3, dtype=dtype) * torch.tensor([[3.0, 1.0, 0.1], [1.0, 1.0, 1.0]]).to(dtype) + 2
    x[:, 0, 1] = 7
    x[:, 1, 2] += 1e4
    return x


def moments(x):
    return x.mean(0), x.var(0, correction=0)


def standardised(x, mean, var):
    return (x - mean) / torch.where(var > 0, var, 1).sqrt()


@pytest.mark.parametrize("loader", [False, True])
def test_global(loader):
    """The statistics of the whole set, from a tensor or from batches of any sizes, in training and evaluation alike."""
    x = data()
    batches = [(x[:1], None), (x[1:40], None), (x[40:], None)] if loader else x
    norm = nk.DataNorm((2, 3), dtype=torch.float64).fit(batches)
    mean, var = moments(x)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var, rtol=1e-12, atol=1e-20)
    for training in (True, False):
        torch.testing.assert_close(norm.train(training)(x), standardised(x, mean, var), rtol=1e-9, atol=1e-11)
    new = x[:2].clone()
    new[:, 0, 1] = 8  # where it was constant: no division by nothing
    torch.testing.assert_close(norm(new)[:, 0, 1], torch.ones(2, dtype=torch.float64))


def test_batch():
    """Each batch by its own statistics, and by their running averages afterwards."""
    x, norm = data(), nk.DataNorm((2, 3), "batch", dtype=torch.float64)
    twin = torch.nn.BatchNorm1d(6, affine=False, dtype=torch.float64)
    for half in x.split(50):
        torch.testing.assert_close(norm(half), twin(half.flatten(1)).view(half.shape))
    torch.testing.assert_close(norm.running_mean.flatten(), twin.running_mean)
    torch.testing.assert_close(norm.running_var.flatten(), twin.running_var)
    want = standardised(x, norm.running_mean, norm.running_var)
    torch.testing.assert_close(norm.eval()(x), want)


@pytest.mark.parametrize("sizes", [[1] * 100, [100], [3, 0, 97]])
def test_running(sizes):
    """Everything seen so far, this batch included, whatever the batches' sizes."""
    x, norm, seen = data(), nk.DataNorm((2, 3), "running", dtype=torch.float64), 0
    for batch in x.split(sizes):
        seen += len(batch)
        mean, var = moments(x[:seen])
        want = standardised(batch, mean, torch.where(var > 1e-18, var, 0))
        torch.testing.assert_close(norm(batch), want, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(norm.running_mean, moments(x)[0])
    before = copy.deepcopy(norm.state_dict())
    norm.eval()(x[:5] + 1)
    assert all(torch.equal(t, before[k]) for k, t in norm.state_dict().items())


def test_running_with_momentum():
    """A moving average, which starts with the first batch."""
    x, norm = data(), nk.DataNorm((2, 3), "running", momentum=0.25, dtype=torch.float64)
    a, b = x.split(50)
    norm(a), norm(b)
    torch.testing.assert_close(norm.running_mean, 0.75 * a.mean(0) + 0.25 * b.mean(0))
    far = (a.mean(0) - b.mean(0)).square() * 0.75 * 0.25
    want = 0.75 * a.var(0, correction=0) + 0.25 * b.var(0, correction=0) + far
    torch.testing.assert_close(norm.running_var, want, rtol=1e-9, atol=1e-18)


def test_gradients_flow():
    x = data(5).requires_grad_()
    norm = nk.DataNorm((2, 3), dtype=torch.float64).fit(data())
    (dx,) = torch.autograd.grad(norm(x).sum(), x)
    torch.testing.assert_close(dx[0], 1 / torch.where(norm.running_var > 0, norm.running_var, 1).sqrt())


def test_state():
    """In the state_dict; a loaded module counts as fitted; float32 data and integer images are taken."""
    x = data().float()
    norm, other = nk.DataNorm((2, 3)).fit(x), nk.DataNorm((2, 3))
    with pytest.raises(RuntimeError, match=r"^DataNorm: mode 'global' needs its statistics: call fit\(data\) first$"):
        other(x)
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other(x), norm(x))
    assert norm.num_samples_tracked == 100
    assert nk.DataNorm(4).fit(torch.randint(0, 9, (50, 4))).running_var.min() > 0
    assert "mode='global'" in repr(norm)


WRONG = {
    "mode": (
        lambda: nk.DataNorm(3, "local"),
        "DataNorm: mode must be one of 'global', 'batch', 'running', got 'local'",
    ),
    "momentum": (lambda: nk.DataNorm(3, momentum=2.0), r"DataNorm: momentum must be None or in \(0, 1\], got 2.0"),
    "shape": (lambda: nk.DataNorm(3)(torch.ones(2, 4)), r"DataNorm: input must have shape \(N, 3\), got \(2, 4\)"),
    "list": (lambda: nk.DataNorm(3)([1.0]), r"DataNorm: input must have shape \(N, 3\), got list"),
    "nothing": (lambda: nk.DataNorm(3).fit([]), "DataNorm.fit: data must have samples, got none"),
    "one": (
        lambda: nk.DataNorm(3, "batch")(torch.ones(1, 3)),
        r"DataNorm: input must have more than one sample .* where mode is 'batch' \('global' and 'running' take one\)",
    ),
    "backend": (lambda: nk.DataNorm(3, backend="cuda"), "DataNorm: backend must be one of"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong(wrong):
    call, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        call()
