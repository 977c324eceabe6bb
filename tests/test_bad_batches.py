"""One batch, or one step, with values that are not finite: later ones are sound, and so is the state."""

import pytest
import torch
from common import every_stateful_op, every_target, need
from layers import every_layer, output, step
from stateful_layers import NAMES, SETTINGS, SHAPES, STEMS, new, numbers, state, used
from stateful_layers import step as training_step

import normkernels as nk

NAN, INF = float("nan"), float("inf")
every_bad_value = pytest.mark.parametrize("value", [NAN, INF, -INF, 1e30], ids=str)
CHANNELS = [c for c in range(12) if c != 1]
interpreted = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")


def goes_on(module):
    getattr(module, "weights_changed", lambda: None)()


@every_bad_value
@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
@pytest.mark.parametrize("name", NAMES)
def test_one_bad_batch(name, first, value):
    """The state stays finite and, where channels do not meet, that of other channels is what it would have been."""
    module, twin = (new(name, dtype=torch.float32) if first else used(name, dtype=torch.float32)[0] for _ in range(2))
    x, before = numbers(SHAPES[name[-2:]], 5, torch.float32), state(module)
    spoilt = x.clone()
    spoilt[1, 1], spoilt[0, 1] = value, -value
    training_step(module, spoilt)
    training_step(twin, x)
    for key, t in state(module).items():
        assert t.isfinite().all(), key
        if not name.startswith("OnlineNorm") and t.shape[-1:] == (12,):  # whose guard is one number for all channels
            torch.testing.assert_close(t[..., CHANNELS], state(twin)[key][..., CHANNELS])
            if not (first and key == "short_term"):
                own, old = t[..., 1], before[key][..., 1]
                if len(own.shape) and value == 1e30:  # the gradients of statistics that large are 0, and count
                    own, old = own[:2], old[:2]
                torch.testing.assert_close(own, old)
    assert module.eval()(x).isfinite().all()
    module.train()
    for i in range(3):
        goes_on(module)
        assert all(t.isfinite().all() for t in training_step(module, numbers(x.shape, 6 + i, torch.float32)))
    assert module.eval()(x).isfinite().all()


@pytest.mark.parametrize("kind", SETTINGS)
def test_one_bad_gradient(kind):
    """A loss that overflowed."""
    module, x = used(kind + "2d", dtype=torch.float32)
    (module(x.requires_grad_()) * INF).sum().backward()
    assert all(t.isfinite().all() for t in state(module).values())
    for i in range(3):
        goes_on(module)
        assert all(t.isfinite().all() for t in training_step(module, numbers(x.shape, i, torch.float32)))


@interpreted
@every_stateful_op
@every_target
def test_every_backend(backend, device, op):
    need(op, backend, device)
    kind = next(k for k, stem in STEMS.items() if stem == op.stem)
    module = new(kind + "2d", backend=backend, dtype=torch.float32).to(device)
    for value in (0.0, NAN, INF, 0.0):
        x = numbers(SHAPES["2d"], 1, torch.float32).to(device)
        x[1, 2] += value
        found = training_step(module, x)
    assert all(t.isfinite().all() for t in [*found, *module.buffers()])


@every_bad_value
@every_layer
def test_every_layer(layer, value):
    """Trains on."""
    module, x = layer.make(), layer.input()
    spoilt = x.clone()
    spoilt[0] = value
    step(module, spoilt)
    step(module, x)
    assert output(module, x).isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("momentum", [None, 0.3])
def test_running_data_norm(momentum):
    """Statistics that training uses: of an element that was not finite they stay."""
    norm, twin = (nk.DataNorm(3, "running", momentum=momentum) for _ in range(2))
    x = torch.randn(8, 3)
    for value in (0.0, NAN, INF, 0.0):
        spoilt = x.clone()
        spoilt[2, 1] += value
        y, want = norm(spoilt), twin(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y[:, [0, 2]], want[:, [0, 2]])
    torch.testing.assert_close(norm.running_var, twin.running_var)
