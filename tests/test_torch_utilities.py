"""After torch's own utilities every layer computes what it did: parameters that change, and copies."""

import copy

import pytest
import torch
from layers import HAS_MODES, LAYERS, each, every_layer, every_trained_layer, fresh, output, step
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.optim.swa_utils import AveragedModel, update_bn

import normkernels as nk


def same(a, b):
    torch.testing.assert_close(a, b)


def test_every_public_layer_is_in_the_table():
    public = {n for n in nk.__all__ if isinstance(getattr(nk, n), type) and issubclass(getattr(nk, n), nn.Module)}
    assert {layer.name for layer in LAYERS} == public


# parameters that change: nothing is kept that was made of the old ones


def flat(module, optimizer):
    """As FSDP keeps parameters: views of one flat tensor, which is what changes."""
    whole = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    parts = whole.split([p.numel() for p in module.parameters()])
    for p, part in zip(module.parameters(), parts, strict=True):
        p.data = part.view_as(p)
    return lambda: whole.mul_(1.5).add_(0.1)


CHANGES = {
    "fused": lambda m, o: o("AdamW", fused=True).step,
    "foreach": lambda m, o: o("AdamW", foreach=True).step,
    "fused-sgd": lambda m, o: o("SGD", fused=True).step,
    "data": lambda m, o: lambda: [p.data.mul_(1.5).add_(0.1) for p in m.parameters()],
    "new-data": lambda m, o: lambda: [setattr(p, "data", p.data * 1.5 + 0.1) for p in m.parameters()],
    "numpy": lambda m, o: lambda: [p.detach().numpy().__iadd__(0.3) for p in m.parameters()],
    "vector": lambda m, o: lambda: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(m.parameters()) + 0.3, m.parameters()
    ),
    "flat": flat,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@every_trained_layer
def test_every_change_of_a_parameter_is_seen(layer, change):
    """In training, in eval(), and where gradients are off: the output is that of a new layer with these parameters."""
    module, x = layer.make(), layer.input()
    changed = CHANGES[change](module, lambda name, **kw: getattr(torch.optim, name)(module.parameters(), 0.3, **kw))
    for train, grad in ((True, True), (False, True), (False, False), (False, False)):
        step(module.train(), x)
        module.train(train)
        with torch.set_grad_enabled(grad):
            before = output(module, x)
            changed()
            other = fresh(layer, module)
            same(y := output(module, x), output(other, x))
        assert not torch.equal(y, before)


@every_trained_layer
def test_averages_are_swapped_in(layer):
    """Evaluation with averaged weights, as a training loop that swaps ``.data`` does it, and back."""
    module, x = layer.make(), layer.input()
    average = AveragedModel(module)
    for p in module.parameters():
        p.data.add_(1)
    average.update_parameters(module)
    module.eval()
    with torch.no_grad():
        before = output(module, x)
        for _ in range(2):
            for p, q in zip(module.parameters(), average.module.parameters(), strict=True):
                p.data, q.data = q.data, p.data
            same(output(module, x), output(fresh(layer, module), x))
        same(output(module, x), before)


@every_trained_layer
def test_functional_call(layer):
    module, other, x = layer.make().eval(), layer.make().eval(), layer.input()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.3)
    before = output(module, x)
    same(functional_call(module, dict(other.state_dict()), x), other(x))
    parameters, buffers = stack_module_state([module, other])
    second = {k: t[1] for k, t in (parameters | buffers).items()}
    same(functional_call(module, second, x), other(x))
    same(output(module, x), before)


@every_layer
def test_validation_under_inference_mode(layer):
    """In eval() or not, before and between steps of training."""
    module, twin, x = layer.make(), layer.make(), layer.input()
    for train in (False, True, False):
        with torch.inference_mode():
            output(module.train(train), x)
        with torch.no_grad():
            output(twin.train(train), x)
        for m in (module, twin):
            step(m.train(), x)
        same([p.grad for p in module.parameters()], [p.grad for p in twin.parameters()])
        assert not any(t.is_inference() for t in module.state_dict().values())


# copies


@every_layer
def test_averaged_model(layer):
    """A copy after a step, with averages of buffers too, goes on alone."""
    module, x = layer.make(), layer.input()
    step(module, x)
    average = AveragedModel(module, use_buffers=True)
    average.update_parameters(module)
    step(average, x)
    step(module, x)
    same(dict(average.module.state_dict()), dict(module.state_dict()))
    mine, others = ({t.data_ptr() for t in m.state_dict().values()} for m in (module, average))
    assert not mine & others


PARAMETRIZATIONS = ("weight_norm", "weight_standardization")


def weights(module):
    """The names of those of its parameters that are no vectors, nor a vector for each step."""
    return [name for name, p in module.named_parameters() if p.dim() > 1 and not name.startswith("norm_")]


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
@pytest.mark.parametrize("layer", [layer for layer in LAYERS if weights(layer.make())], ids=str)
def test_copies_of_a_parametrized_layer(layer, kind):
    """deepcopy and AveragedModel, before and after a forward; the copy follows its own parameters."""
    module, x = layer.make(), layer.input()
    for name in weights(module):
        getattr(nk.parametrizations, kind)(module, name)
    for copies in (copy.deepcopy, AveragedModel):
        for _ in range(2):
            other = copies(module)
            step(other, x)
            step(module, x)
            same([p.grad for p in other.parameters()], [p.grad for p in module.parameters()])
    y = output(module.eval(), x)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2).add_(0.3)
    same(output(module, x), y)
    assert not torch.equal(output(other.eval(), x), y)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_update_bn(activation, frozen):
    """Statistics of the data, as with torch's layer; frozen ones stay, and so do layers that it does not know."""
    batches = [3 + 2 * torch.randn(8, 4) for _ in range(3)]
    ours, theirs = nk.BatchNorm1d(4, activation=activation), nn.BatchNorm1d(4)
    other = nk.BatchRenorm1d(4).eval()
    for module in (ours, theirs):
        module(batches[0] - 7)
    before = copy.deepcopy(ours.state_dict())
    if frozen:
        ours.freeze()
    for module in (ours, theirs):
        update_bn(batches, nn.Sequential(module, other))
    same(dict(ours.state_dict()), dict(before if frozen else theirs.state_dict()))
    assert ours.momentum == 0.1
    assert all(t.isfinite().all() for t in other.state_dict().values())


@each([a for a in HAS_MODES if "max_steps" not in a.switches])  # whose last statistics move several times a call
def test_our_update_bn(layer):
    """Of every layer with a state: with a momentum the mean over the batches, else what a pass in training leaves."""
    module, batches = layer.used(training=False), [layer.input(torch.float64, seed) for seed in range(3)]
    averaged, momentum = hasattr(module, "momentum"), getattr(module, "momentum", None)
    twin, state = copy.deepcopy(module).train(), []
    nk.update_bn([batches[0], *((b, "label") for b in batches[1:])], module)
    assert not module.training
    assert getattr(module, "momentum", None) == momentum
    for b in batches:
        if averaged:
            twin.momentum = 1.0
        twin(b)
        state.append({name: t.clone() for name, t in twin.named_buffers() if t.is_floating_point()})
    for name in state[0]:
        seen = [s[name] for s in state]
        same(dict(module.named_buffers())[name], torch.stack(seen).mean(0) if averaged else seen[-1])


def test_our_update_bn_leaves_what_is_frozen():
    """And the ramp of batch renorm."""
    frozen, renorm = nk.BatchRenorm1d(4).freeze(), nk.BatchRenorm1d(4)
    renorm(torch.randn(8, 4))
    nk.update_bn([torch.randn(8, 4)], nn.Sequential(frozen, renorm))
    assert renorm.num_batches_tracked == 1
    same(dict(frozen.named_buffers()), dict(nk.BatchRenorm1d(4).named_buffers()))


def test_a_freezing_loop():
    """``eval()`` of every batch norm by its type, as training scripts freeze statistics."""
    model, x = nn.Sequential(nk.BatchNorm2d(4, activation="relu"), nn.BatchNorm2d(4)), torch.randn(2, 4, 3, 3)
    before = copy.deepcopy(model.train().state_dict())
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    step(model, x)
    same(dict(model.state_dict()), dict(before))
