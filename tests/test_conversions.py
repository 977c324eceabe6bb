"""Utilities of torch that put a layer in the place of another: the function stays, or an error says why it cannot."""

import copy
import re
import warnings

import pytest
import torch
from layers import LAYERS, output
from torch import nn
from torch.fx.experimental import optimization

import normkernels as nk


def same(a, b):
    torch.testing.assert_close(a, b)


PARAMETRIZATIONS = ("weight_norm", "weight_standardization")


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
