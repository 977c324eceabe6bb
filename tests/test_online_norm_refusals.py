"""What Online Normalization leaves out of its state, and what it refuses."""

import math

import pytest
import torch
from common import every_target, need, small
from online_loop import OP, STATE, numbers, ours, start

import normkernels as nk


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
