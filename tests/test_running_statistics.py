"""Running statistics of batch and instance norm: frozen, untouched by a failed call, checkpointed."""

import copy
from functools import partial

import pytest
import torch
from channel_twins import every_tracking_module, pair, same_state, step
from torch.utils.checkpoint import checkpoint

import normkernels as nk


@every_tracking_module
def test_frozen_statistics(name):
    """Frozen statistics stay whatever train() says; so do weight and bias; unfreeze() gives both back."""
    ours, theirs, x = pair(name, affine=True, track_running_stats=True)
    for module in (ours, theirs):
        step(module, x)
    before = copy.deepcopy(ours.state_dict())
    assert ours.freeze() is ours
    assert "frozen_statistics=True" in repr(ours)
    assert not any(p.requires_grad for p in ours.train().parameters())
    torch.testing.assert_close(step(ours, x)[0], step(theirs.eval(), x)[0])
    torch.testing.assert_close(dict(ours.state_dict()), dict(before), rtol=0, atol=0)
    ours.unfreeze()
    assert repr(ours) == repr(theirs)
    torch.testing.assert_close(step(ours, x), step(theirs.train(), x))
    same_state(ours, theirs)


@every_tracking_module
def test_freezing_one_of_the_two(name):
    ours, theirs, x = pair(name, affine=True, track_running_stats=True)
    ours.freeze(affine=False)
    torch.testing.assert_close(step(ours, x), step(theirs.eval(), x))
    ours.unfreeze().freeze(statistics=False)
    assert not ours.weight.requires_grad
    torch.testing.assert_close(ours(x), theirs.train()(x))
    same_state(ours, theirs)
    module = getattr(nk, name)(12, track_running_stats=False)
    with pytest.raises(ValueError, match=f"{name}.freeze: statistics must be running ones, got none to freeze"):
        module.freeze()


@every_tracking_module
def test_a_failed_call_changes_nothing(name):
    """Wrong skip, wrong dtype, too few values: the statistics and the count of batches stay."""
    ours, _, x = pair(name, affine=True, track_running_stats=True)
    step(ours, x)
    before = copy.deepcopy(ours.state_dict())
    one = x[:1].reshape(1, 12, -1)[..., :1].reshape(1, 12, *[1] * (x.dim() - 2))
    for bad in ((x, x[:-1]), (x.double(),), (x.int(),), (one,)):
        with pytest.raises(ValueError, match="_norm: "):
            ours(*bad)
    torch.testing.assert_close(dict(ours.state_dict()), dict(before), rtol=0, atol=0)


@every_tracking_module
def test_checkpointing(name):
    """The same bits; statistics move in the forward that is run again too, as torch's do."""
    ours, theirs, x = pair(name, affine=True, track_running_stats=True)

    def block(module):  # recomputation stops at the last tensor that backward needs: not the norm's here
        return torch.nn.Sequential(module, torch.nn.Tanh())

    twin = copy.deepcopy(ours)
    plain = step(twin, x, block(twin))
    again, _ = (step(m, x, partial(checkpoint, block(m), use_reentrant=False)) for m in (ours, theirs))
    assert all(map(torch.equal, plain, again))
    same_state(ours, theirs)
