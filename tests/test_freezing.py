"""What is frozen stays so: through copies, state_dicts, resets and casts; torch's own layers load what is saved."""

import copy
import io

import pytest
import torch
from layers import BY_RANK, output, step
from torch import nn

import normkernels as nk

every_running_layer = pytest.mark.parametrize("layer", [a for a in BY_RANK if a.name.endswith("2d")], ids=str)
PARTS = {"both": (True, True), "statistics": (True, False), "affine": (False, True), "neither": (False, False)}


def frozen(layer, statistics=True, affine=True):
    module = layer.make()
    step(module, layer.input())
    return module.freeze(statistics, affine)


def saved(module):
    """Its state_dict, through a file as torch.load reads it by default."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file)


def parts(module):
    return module.frozen_statistics, not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("part", PARTS)
@every_running_layer
def test_a_state_dict_carries_it(layer, part, nested):
    """Alone and in a model; assigned or copied; and back to what is not frozen nothing is lost."""
    module = frozen(layer, *PARTS[part])
    for assign in (False, True):
        other = layer.make()
        a, b = (nn.Sequential(nn.Sequential(m)) if nested else m for m in (module, other))
        b.load_state_dict(saved(a), assign=assign)
        assert parts(other) == PARTS[part]
        for _ in range(2):
            step(module.train(), layer.input())
            step(other.train(), layer.input())
        torch.testing.assert_close(dict(other.state_dict()), dict(module.state_dict()))
        b.load_state_dict(saved(nn.Sequential(nn.Sequential(layer.make())) if nested else layer.make()))
        assert parts(other) == PARTS[part]


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d"])
def test_torch_loads_it(name):
    """Strictly, and its checkpoints load into what is frozen, which stays so."""
    layer = next(a for a in BY_RANK if a.name == name)
    module, theirs = frozen(layer), getattr(nn, name)(4, affine=True, track_running_stats=True)
    assert list(module.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(saved(module))
    torch.testing.assert_close(theirs.eval()(layer.input()), output(module, layer.input()))
    module.load_state_dict(saved(theirs))
    assert parts(module) == (True, True)


@every_running_layer
def test_resets(layer):
    """Statistics that are frozen are not reset; all starts again with reset_parameters(), as after to_empty()."""
    module = frozen(layer)
    before = copy.deepcopy(dict(module.state_dict()))
    module.reset_running_stats()
    torch.testing.assert_close(dict(module.state_dict()), before)
    module.to("meta").to_empty(device="cpu").reset_parameters()
    torch.testing.assert_close(dict(module.state_dict()), dict(layer.make().state_dict()))
    assert parts(module) == (True, True)
    module.unfreeze()
    step(module, layer.input())
    module.reset_running_stats()
    torch.testing.assert_close(dict(module.named_buffers()), dict(layer.make().named_buffers()))


@every_running_layer
def test_casts_and_copies(layer):
    for change in (copy.deepcopy, lambda m: copy.deepcopy(m).double().float(), lambda m: nn.Sequential(m)[0]):
        assert parts(change(frozen(layer))) == (True, True)


def test_parameters_that_others_freeze():
    """A copy whose gradients somebody turned off, for averages say, freezes nobody."""
    average = copy.deepcopy(nk.BatchNorm1d(4)).requires_grad_(False)
    module = nk.BatchNorm1d(4)
    module.load_state_dict(average.state_dict())
    assert parts(module) == (False, False)
    thawed = nk.BatchNorm1d(4).freeze().requires_grad_(True)
    module.load_state_dict(thawed.state_dict())
    assert parts(module) == (True, False)


def test_statistics_that_are_not_there():
    """A layer without running statistics says that these keys are too many, as torch's does."""
    with pytest.raises(RuntimeError, match="Unexpected key"):
        nk.BatchNorm1d(4, track_running_stats=False).load_state_dict(nk.BatchNorm1d(4).freeze().state_dict())
