"""BatchNorm, GroupNorm and InstanceNorm, each beside its torch.nn twin."""

import pytest
import torch
from common import randomised

import normkernels as nk

# arguments, and the shape of an input
SHAPES = {
    "BatchNorm1d": ((12,), (5, 12)),
    "BatchNorm2d": ((12,), (5, 12, 3, 4)),
    "BatchNorm3d": ((12,), (3, 12, 2, 3, 4)),
    "GroupNorm": ((3, 12), (5, 12, 3, 4)),
    "InstanceNorm1d": ((12,), (5, 12, 7)),
    "InstanceNorm2d": ((12,), (5, 12, 3, 4)),
    "InstanceNorm3d": ((12,), (3, 12, 2, 3, 4)),
}
TRACKING = [name for name in SHAPES if name != "GroupNorm"]
every_tracking_module = pytest.mark.parametrize("name", TRACKING)


def pair(name, **switches):
    """Ours and torch's with the same random parameters, and an input."""
    args, shape = SHAPES[name]
    ours, theirs = (getattr(space, name)(*args, **switches) for space in (nk, torch.nn))
    if switches.get("device") != "meta":
        theirs.load_state_dict(randomised(ours).state_dict())
    torch.manual_seed(0)
    return ours, theirs, 3 + 2 * torch.randn(shape, dtype=switches.get("dtype"))


def step(module, x, forward=None):
    """The output and every gradient of a step of training."""
    x = x.detach().requires_grad_()
    y = (module if forward is None else forward)(x)
    wanted = [t for t in (x, *module.parameters()) if t.requires_grad]
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, wanted, dy)]


def same_state(ours, theirs):
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
