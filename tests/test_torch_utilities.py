"""After torch's own utilities every layer computes what it did, or an error says why it cannot."""

import copy
import re
import warnings

import pytest
import torch
from layers import LAYERS, every_layer, every_trained_layer, fresh, output, step
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.fx.experimental import optimization
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
    """The names of those of its parameters that are no vectors."""
    return [name for name, p in module.named_parameters() if p.dim() > 1]


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


# utilities that put a layer of torch in the place of another one


def libraries_freeze(model):
    """As model libraries do it: each batch norm becomes an affine map of what is read from it."""
    for name, child in model.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            fixed = nn.BatchNorm2d(child.num_features, child.eps).requires_grad_(False)
            fixed.load_state_dict(child.state_dict())
            setattr(model, name, fixed.eval())
    return model


def fused(model):
    conv, norm = model.eval()
    return nn.utils.fusion.fuse_conv_bn_eval(conv, norm)


def fused_by_name(model):
    names = [["0", "1"]]
    known = {(nn.Conv2d, type(model[1])): lambda qat, conv, norm: nn.utils.fusion.fuse_conv_bn_eval(conv, norm)}
    return torch.ao.quantization.fuse_modules(
        model.eval(), names, fuse_custom_config_dict={"additional_fuser_method_mapping": known}
    )


CONVERSIONS = {
    "sync": nn.SyncBatchNorm.convert_sync_batchnorm,
    "fuse_conv_bn_eval": fused,
    "fuse_modules": lambda model: torch.ao.quantization.fuse_modules(model.eval(), [["0", "1"]]),
    "fuse_modules-known": fused_by_name,
    "fx": lambda model: optimization.fuse(model.eval()),
    "libraries": libraries_freeze,
    "memory_format": lambda model: nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last),
    "quantize_dynamic": lambda model: torch.ao.quantization.quantize_dynamic(model, dtype=torch.qint8),
}
TWINS = [layer for layer in LAYERS if layer.name in ("BatchNorm2d", "InstanceNorm2d", "GroupNorm")]
SWITCHES = {"plain": {}, "activation": {"activation": "relu"}, "frozen": {}, "backend": {"backend": "reference"}}


def check_converted(model, x, want, frozen):
    """As it was; if it is frozen, after a step of training too."""
    torch.testing.assert_close(model.eval()(x), want, rtol=1e-4, atol=1e-5)
    if frozen:
        model.train()(x)
        torch.testing.assert_close(model.eval()(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated.*:DeprecationWarning")
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("layer", TWINS, ids=str)
def test_conversions(layer, conversion, switch):
    """The function stays, or an error says why not."""
    norm = layer.make(**SWITCHES[switch])
    x = torch.randn(3, 4, 5, 5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    output(norm, x)
    if switch == "frozen" and layer.name != "GroupNorm":
        norm.freeze()
    model = nn.Sequential(nn.Conv2d(4, 4, 1), norm)
    want = copy.deepcopy(model).eval()(x)
    may_refuse = switch in ("activation", "frozen") or conversion.startswith(("fuse", "fx"))
    errors = (RuntimeError, AssertionError, AttributeError, NotImplementedError, ValueError) if may_refuse else ()
    try:
        converted = CONVERSIONS[conversion](copy.deepcopy(model))
    except errors:
        return
    check_converted(converted, x, want, switch == "frozen")


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d", "InstanceNorm3d"])
def test_what_would_be_lost_is_said(name):
    """And a plain layer is like torch's."""
    layer = next(a for a in LAYERS if a.name == name)
    assert layer.make(eps=0.25).eps == 0.25
    for module, lost in (
        (layer.make(activation="silu"), "activation='silu'; make it a module of its own first"),
        (layer.make().freeze(), "frozen_statistics=True; call unfreeze() first"),
    ):
        message = f"{name}: a plain layer with this eps would not have {lost}"
        with pytest.raises(RuntimeError, match=re.escape(message)):
            nn.utils.fusion.fuse_conv_bn_eval(nn.Conv2d(4, 4, 1).eval(), module.eval())
        assert "eps=1e-05" in repr(module)
    assert module.unfreeze().eps == 1e-5


def test_a_skip_is_refused_after_a_conversion():
    norm, x = nk.BatchNorm2d(4), torch.randn(2, 4, 3, 3)
    norm(x, x)
    with pytest.raises(TypeError, match="positional arguments"):
        nn.SyncBatchNorm.convert_sync_batchnorm(norm)(x, x)


def test_linear_layers_are_fused_or_not():
    linear, norm, x = nn.Linear(5, 4).eval(), nk.BatchNorm1d(4), torch.randn(7, 5)
    norm(linear(x))
    same(nn.utils.fusion.fuse_linear_bn_eval(linear, norm.eval())(x), norm(linear(x)))
    norm.activation = "relu"
    with pytest.raises(RuntimeError, match="would not have activation='relu'"):
        nn.utils.fusion.fuse_linear_bn_eval(linear, norm)


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_fusing_a_parametrized_convolution_is_refused(kind):
    """By torch, for its weight is no parameter any more."""
    conv, norm = getattr(nk.parametrizations, kind)(nn.Conv2d(4, 4, 3)).eval(), nk.BatchNorm2d(4).eval()
    with pytest.raises(KeyError, match="attribute 'weight' already exists"):
        nn.utils.fusion.fuse_conv_bn_eval(conv, norm)


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


def test_a_freezing_loop():
    """``eval()`` of every batch norm by its type, as training scripts freeze statistics."""
    model, x = nn.Sequential(nk.BatchNorm2d(4, activation="relu"), nn.BatchNorm2d(4)), torch.randn(2, 4, 3, 3)
    before = copy.deepcopy(model.train().state_dict())
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    step(model, x)
    same(dict(model.state_dict()), dict(before))


NORMS = [{}, {"eps": 0.1}, {"activation": "silu"}, {"weight_offset": 1.0}, {"bias": False}]


@pytest.mark.parametrize("switches", NORMS, ids=str)
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_layers(switches, norm_first):
    """With or without their fast path: the same, in a nested batch too."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=norm_first)
    layer.norm1, layer.norm2 = nk.LayerNorm(8, **switches), nk.LayerNorm(8, **switches)
    with torch.no_grad():
        for norm in (layer.norm1, layer.norm2):
            norm.weight.normal_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # why there is no nested tensor
        encoder = nn.TransformerEncoder(layer, 2)
    x, padded = torch.randn(2, 3, 8), torch.tensor([[False, False, True], [False] * 3])
    for model, options in ((layer, {}), (encoder, {}), (encoder, {"src_key_padding_mask": padded})):
        kept = ~options.get("src_key_padding_mask", torch.zeros_like(padded))
        want = model.train()(x, **options)[kept]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nested tensors are a prototype
            if switches == {"bias": False}:
                torch.backends.mha.set_fastpath_enabled(False)  # which needs a bias of every norm
            found = model.eval()(x, **options)[kept]
            torch.backends.mha.set_fastpath_enabled(True)
        same(found, want.detach())


def test_eps_of_a_layer_norm():
    """What it is where that is all that the layer does."""
    assert nk.LayerNorm(4, eps=0.25).eps == 0.25
    for more in (nk.LayerNorm(4, activation="relu"), nk.LayerNorm(4, weight_offset=1.0)):
        assert more.eps != more.eps
        assert "eps=1e-05" in repr(more)
