"""State is in float32 or wider, whatever the dtype of the model, the default one and that of what is loaded."""

import copy
import io

import pytest
import torch
from layers import LAYERS, every_layer, output, step

import normkernels as nk

WITH_STATE = [layer for layer in LAYERS if list(layer.make().buffers())]
every_layer_with_state = pytest.mark.parametrize("layer", WITH_STATE, ids=str)
NARROW = [torch.bfloat16, torch.float16]


@pytest.fixture(params=[*NARROW, torch.float64], ids=str)
def default(request):
    """That dtype is the default one for the time of a test."""
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def dtypes(module):
    return {t.dtype for t in module.buffers() if t.is_floating_point()}


def wide(dtype):
    return dtype if dtype.itemsize > 2 else torch.float32


@every_layer
def test_default_dtypes(layer, default):
    """State is wide, parameters are as in torch; steps and eval() run."""
    module, x = layer.make(), layer.input(default)
    assert dtypes(module) <= {wide(default)}
    assert {p.dtype for p in module.parameters()} <= {default}
    for train in (True, True, False):
        step(module.train(train), x)
    assert dtypes(module) <= {wide(default)}


def test_small_steps_add_up():
    """What the state is wide for: 4000 samples of mean 3."""
    torch.set_default_dtype(torch.bfloat16)
    norm = nk.OnlineNorm1d(1)
    torch.set_default_dtype(torch.float32)
    for batch in (torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)) + 3).bfloat16().split(8):
        norm(batch)
    assert abs(norm.running_mean.item() - 2.95) < 0.1


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@every_layer_with_state
def test_a_dtype_that_is_asked_for(layer, dtype):
    """For parameters; the state is wide beside them."""
    module = layer.make(dtype=dtype)
    step(module, layer.input(dtype))
    assert dtypes(module) == {torch.float32}
    assert {p.dtype for p in module.parameters()} <= {dtype}


CASTS = {
    "half": (lambda m: m.half(), torch.float16),
    "bfloat16": (lambda m: m.to(torch.bfloat16), torch.bfloat16),
    "half-float": (lambda m: m.to(torch.float16).float(), torch.float32),
    "double-half": (lambda m: m.double().half(), torch.float16),
    "double-bfloat16-float": (lambda m: m.double().bfloat16().float(), torch.float32),
    "double": (lambda m: m.double(), torch.float64),
    "device-and-dtype": (lambda m: m.to("cpu", torch.bfloat16), torch.bfloat16),
    "type": (lambda m: m.type(torch.float16), torch.float16),
}


@pytest.mark.parametrize("cast", CASTS)
@every_layer
def test_casts(layer, cast):
    """The state keeps its values, and the model runs."""
    module, (function, dtype) = layer.make(), CASTS[cast]
    step(module, layer.input())
    before = {k: t.double() for k, t in module.named_buffers()}
    function(module)
    assert dtypes(module) <= {wide(dtype)}
    torch.testing.assert_close({k: t.double() for k, t in module.named_buffers()}, before, rtol=0, atol=0)
    for train in (True, False):
        assert output(module.train(train), layer.input(dtype)).dtype == dtype
        step(module, layer.input(dtype))


@every_layer
def test_meta_and_back(layer):
    """To meta, with and without casts, and to unfilled memory, which a state_dict fills."""
    module, x = layer.make(), layer.input()
    step(module, x)
    for cast in (torch.nn.Module.float, torch.nn.Module.half, torch.nn.Module.bfloat16):
        other = cast(cast(copy.deepcopy(module)).to("meta")).float()
        assert all(t.is_meta for t in other.state_dict().values())
        other.to_empty(device="cpu").load_state_dict(module.state_dict())
        torch.testing.assert_close(output(other.eval(), x), output(copy.deepcopy(module).eval(), x))
    assert dtypes(layer.make(device="meta", dtype=torch.bfloat16)) <= {torch.float32}


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@every_layer_with_state
def test_a_state_dict_in_sixteen_bits(layer, device, assign):
    """Copied or assigned, it leaves the state wide."""
    module = layer.make()
    step(module, layer.input())
    narrow = {k: t.bfloat16() if t.is_floating_point() else t for k, t in module.state_dict().items()}
    other = layer.make(device=device)
    if device == "meta" and not assign:
        other.to_empty(device="cpu")
    other.load_state_dict(narrow, assign=assign)
    assert dtypes(other) == {torch.float32}
    for name, t in [*other.named_buffers()]:
        setattr(other, name, t.to(torch.float16 if t.is_floating_point() else t.dtype))
    assert dtypes(other) == {torch.float32}
    step(other, layer.input(next((p.dtype for p in other.parameters()), torch.bfloat16)))


def test_state_dicts_move_between_torch_and_ours_in_sixteen_bits():
    ours, theirs = nk.BatchNorm1d(4, dtype=torch.bfloat16), torch.nn.BatchNorm1d(4, dtype=torch.bfloat16)
    ours(torch.randn(8, 4).bfloat16())
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file))
    torch.testing.assert_close(theirs.running_var, ours.running_var.bfloat16())
    ours.load_state_dict(theirs.state_dict())
    assert ours.running_var.dtype == torch.float32
