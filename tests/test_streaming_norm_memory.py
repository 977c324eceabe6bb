"""The memory of Streaming Normalization, against what the public code gets wrong."""

import pytest
import torch
from common import small
from streaming_by_hand import CURRENT, OP, PAPER, layer, numbers, step

import normkernels as nk

STATE = ("long_term", "short_term", "counts")


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
