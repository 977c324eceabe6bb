"""Mistakes that people make, and that what they are told says what to do: the name, the rule, the value, the way on."""

import inspect
import re
import warnings

import pytest
import torch
from layers import LAYERS, each

import normkernels as nk
from normkernels import functional as F

X, ROWS, SEQUENCE = torch.randn(3, 6, 4, 4), torch.randn(5, 8), torch.randn(7, 2, 4)
W6, W8 = torch.ones(6), torch.ones(8)

# the call, and all that is said
MISTAKES = {
    "no-groups": (lambda: nk.GroupNorm(0, 6), "GroupNorm: num_groups must be at least 1, got 0"),
    "groups-swapped": (lambda: nk.GroupNorm(6.0, 3), "GroupNorm: num_groups must be an int, got 6.0"),
    "size-float": (
        lambda: nk.LayerNorm(8.0),
        "LayerNorm: normalized_shape must be an int or a sequence of ints, got 8.0",
    ),
    "size-float-function": (
        lambda: F.layer_norm(ROWS, 8.0),
        "layer_norm: normalized_shape must be an int or a sequence of ints, got 8.0",
    ),
    "size-string": (lambda: nk.BatchNorm2d("8"), "BatchNorm2d: num_features must be an int, got '8'"),
    "size-negative": (lambda: nk.OnlineNorm1d(-1), "OnlineNorm1d: num_features must be positive or 0, got -1"),
    "size-list": (lambda: nk.BatchNorm1d([4, 4]), "BatchNorm1d: num_features must be an int, got [4, 4]"),
    "kernel-zero": (lambda: nk.NormPropConv2d(3, 4, 0), "NormPropConv2d: kernel_size must be at least 1, got 0"),
    "eps-string": (lambda: nk.LayerNorm(8, eps="1e-5"), "LayerNorm: eps must be a number, got '1e-5'"),
    "eps-string-function": (
        lambda: F.layer_norm(ROWS, 8, eps="1e-5"),
        "layer_norm: eps must be a number, got '1e-5'",
    ),
    "eps-negative": (lambda: nk.GroupNorm(2, 6, -1.0), "GroupNorm: eps must be positive or 0, got -1.0"),
    "eps-negative-function": (
        lambda: F.group_norm(X, 2, eps=-1.0),
        "group_norm: eps must be positive or 0, got -1.0",
    ),
    "eps-nan": (lambda: F.rms_norm(ROWS, 8, eps=float("nan")), "rms_norm: eps must be positive or 0, got nan"),
    "eps-is-affine": (lambda: nk.LayerNorm(8, True), "LayerNorm: eps must be a number, got True"),
    "affine-is-momentum": (
        lambda: nk.BatchNorm2d(8, 1e-5, 0.1, 0.1),
        "BatchNorm2d: affine must be True or False, got 0.1",
    ),
    "slope-none": (lambda: F.group_norm(X, 2, slope=None), "group_norm: slope must be a number, got None"),
    "momentum-string": (lambda: nk.BatchRenorm2d(6, momentum="0.1"), "BatchRenorm2d: momentum must be a number, .*"),
    "weight-for-shape": (
        lambda: F.layer_norm(ROWS, W8),
        "layer_norm: normalized_shape must be an int or a sequence of ints, got a tensor of shape (8,) "
        "(weight comes after it)",
    ),
    "weight-for-groups": (lambda: F.group_norm(X, W6), "group_norm: num_groups must be an int, got a tensor of .*"),
    "h0-alone": (
        lambda: nk.LayerNormLSTM(4, 3)(SEQUENCE, torch.zeros(1, 2, 3)),
        "LayerNormLSTM: hx must be a pair of tensors (h_0, c_0), got a tensor of shape (1, 2, 3) "
        "(zeros are layer(input))",
    ),
    "h0-alone-cell": (
        lambda: nk.LayerNormLSTMCell(4, 3)(SEQUENCE[0], torch.zeros(2, 3)),
        "LayerNormLSTMCell: hx must be a pair of tensors (h_0, c_0), got a tensor of shape (2, 3) .*",
    ),
    "pair-for-gru": (
        lambda: nk.LayerNormGRU(4, 3)(SEQUENCE, (torch.zeros(1, 2, 3),) * 2),
        "LayerNormGRU: hx must be a tensor h_0, got .* (it has no cell c_0)",
    ),
    "cell-dtype": (
        lambda: nk.LayerNormGRUCell(4, 3)(SEQUENCE[0].double()),
        "LayerNormGRUCell: input dtype (torch.float64) does not match weight dtype (torch.float32). .*",
    ),
    "channels": (
        lambda: nk.BatchNorm2d(8)(X),
        "batch_norm: input must have 8 channels in dim 1, as weight has values, got shape (3, 6, 4, 4)",
    ),
    "channels-last": (
        lambda: nk.BatchNorm2d(6)(X.movedim(1, -1)),
        "batch_norm: input must have 6 channels in dim 1, as weight has values, got shape (3, 4, 4, 6) "
        "(channels lie last: input.movedim(-1, 1))",
    ),
    "channels-running": (
        lambda: nk.BatchNorm2d(8, affine=False)(X),
        "batch_norm: input must have 8 channels in dim 1, as running_mean has values, got shape (3, 6, 4, 4)",
    ),
    "one-image": (
        lambda: nk.BatchNorm2d(6)(X[0]),
        "BatchNorm2d: input must have 4 dimensions (N, C, *), got shape (6, 4, 4) "
        "(one image alone: input.unsqueeze(0))",
    ),
    "numpy": (lambda: nk.BatchNorm2d(6)(X.numpy()), "BatchNorm2d: input must be a torch.Tensor, got array.*"),
    "list": (lambda: nk.LayerNormGRU(4, 3)([1.0]), "LayerNormGRU: input must be a torch.Tensor or .*, got [1.0]"),
    "double": (
        lambda: nk.LayerNorm(8)(ROWS.double()),
        "layer_norm: weight must have input's dtype torch.float64, got torch.float32 "
        "(cast one: input.to(torch.float32), or a layer.to(torch.float64))",
    ),
    "device": (lambda: nk.LayerNorm(8)(ROWS.to("meta")), "layer_norm: weight must .* (move one: input.to('cpu'), .*)"),
    "residual": (
        lambda: nk.BatchNorm2d(6)(X, residual=X),
        "BatchNorm2d.forward: there is no argument 'residual' (did you mean 'skip'?)",
    ),
    "skip": (
        lambda: F.rms_norm(ROWS, 8, skip=ROWS),
        "rms_norm: there is no argument 'skip' (did you mean 'residual'?)",
    ),
    "skip-at-construction": (
        lambda: nk.GroupNorm(2, 6, residual=True),
        "GroupNorm: there is no argument 'residual' (it is given to the call: layer(input, skip=...))",
    ),
    "activation-at-the-call": (
        lambda: nk.LayerNorm(8)(ROWS, activation="relu"),
        "LayerNorm.forward: there is no argument 'activation' "
        "(it is given to the constructor: LayerNorm(..., activation=...))",
    ),
    "misspelt": (lambda: nk.RMSNorm(8, activaton="relu"), "RMSNorm: .* 'activaton' (did you mean 'activation'?)"),
    "other-name": (lambda: nk.RMSNorm(8, epsilon=1.0), "RMSNorm: there is no argument 'epsilon' (did you mean 'eps'?)"),
    "backend": (lambda: nk.LayerNorm(8, backend="Triton"), "LayerNorm: .* got 'Triton' (did you mean 'triton'?)"),
    "backend-device": (lambda: F.layer_norm(ROWS, 8, backend="cuda"), "layer_norm: .*'cuda' (did you mean 'native'?)"),
}  # fmt: skip


def pattern(said: str) -> str:
    """``.*`` stands for anything."""
    return "^" + re.escape(said).replace(re.escape(".*"), ".*") + "$"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_said(mistake):
    call, said = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=pattern(said)) as caught:
        call()
    assert "\n" not in str(caught.value)


# what somebody wrote for an activation -> the name
ACTIVATIONS = {
    "ReLU": "relu", "Silu": "silu", "swish": "silu", "gelu_new": "gelu_tanh", "leaky": "leaky_relu", "relu7": "relu",
    "hard_swish": "hardswish", "softpls": "softplus", torch.relu: "relu", torch.nn.functional.gelu: "gelu",
    torch.nn.SiLU(): "silu", torch.nn.GELU("tanh"): "gelu_tanh", torch.nn.LeakyReLU(): "leaky_relu",
    torch.nn.ReLU: "relu", torch.nn.Identity(): "identity", torch.nn.Hardswish(): "hardswish",
}  # fmt: skip


@pytest.mark.parametrize("written", ACTIVATIONS, ids=lambda w: getattr(w, "__name__", str(w)))
def test_an_activation_that_was_meant(written):
    meant = re.escape(f"(did you mean {ACTIVATIONS[written]!r}?)")
    for call in (lambda: nk.GroupNorm(2, 6, activation=written), lambda: F.layer_norm(ROWS, 8, activation=written)):
        with pytest.raises(ValueError, match=f"activation must be None or one of .*, got .* {meant}$"):
            call()


@each([a for a in LAYERS if a.name != "DataNorm"])
def test_every_number_of_a_layer_is_looked_at(layer):
    """A string, a flag or something smaller than 0 for eps; a string for any other number."""
    parameters = inspect.signature(getattr(nk, layer.name)).parameters
    numbers = [p.name for p in parameters.values() if float in (p.annotation, *getattr(p.annotation, "__args__", ()))]
    assert numbers
    for name in numbers:
        for value in ("1e-5", *((True, -1.0, float("nan")) if name.endswith("eps") else ())):
            if name == "gain_init" and isinstance(value, str):
                continue  # a number or a name
            rule = "(None or )?a (number|sequence of numbers)|in|positive or 0|'jacobian'"
            with pytest.raises(ValueError, match=f"^{layer.name}: {name} must be ({rule}).*, got"):
                layer.make(**{name: value})


@each(LAYERS)
def test_every_call_of_a_layer_refuses_an_argument(layer):
    with pytest.raises(TypeError, match=rf"^{layer.name}\.forward: there is no argument 'backend' \(.*{layer.name}\("):
        layer.make()(layer.input(), backend="native")


def test_an_error_that_is_no_argument_s_stays(monkeypatch):
    """What torch says of something else is handed on as it is."""

    def failing(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(nk.ops.group_norm, "call", failing)
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        F.group_norm(torch.randn(3, 6, 1, 7), 2)


def test_a_warning_points_at_the_line_of_the_user():
    layer = torch.nn.Sequential(nk.InstanceNorm2d(8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(X)
    assert [w.filename for w in caught] == [__file__]
