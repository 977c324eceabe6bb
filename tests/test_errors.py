"""Every bad argument: one line that names function, argument, rule and value, and inputs left as they were."""

import pytest
import torch
from common import NORMS, call, small

from normkernels.cases import OPS

# what is wrong with the arguments of every op: (change, the text after "<op>: "); added: its residual or skip
WRONG = {
    "input-int": ({"input": lambda x: x.int()}, "input must be float64, float32, bfloat16 or float16, got torch.int32"),
    "input-complex": ({"input": lambda x: x + 0j}, "input must be float64, .*, got torch.complex64"),
    "input-list": ({"input": lambda x: x.tolist()}, "input must be a torch.Tensor, got list"),
    "input-sparse": ({"input": lambda x: x.to_sparse()}, "input must be a dense tensor, got torch.sparse_coo"),
    "weight-shape": ({"weight": lambda w: w[:-1]}, r"weight must have shape \(33,\), got \(32,\)"),
    "weight-rank": ({"weight": lambda w: w[None]}, r"weight must have shape \(33,\), got \(1, 33\)"),
    "weight-dtype": ({"weight": lambda w: w.double()}, "weight must have input's dtype .*, got torch.float64"),
    "weight-16-bit": ({"weight": lambda w: w.half()}, "weight must have input's dtype .*, got torch.float16"),
    "weight-int": ({"weight": lambda w: w.int()}, "weight must have input's dtype .*, got torch.int32"),
    "weight-device": ({"weight": lambda w: w.to("meta")}, "weight must be on input's device cpu, got meta"),
    "weight-number": ({"weight": lambda w: 1.0}, "weight must be a torch.Tensor or None, got float"),
    "weight-sparse": ({"weight": lambda w: w.to_sparse()}, "weight must be a dense tensor, got torch.sparse_coo"),
    "added-shape": ({"added": lambda r: r[:-1]}, r"added must have input's shape \(6, .*\), got \(5, .*\)"),
    "added-broadcast": ({"added": lambda r: r[:1]}, r"added must have input's shape .*, got \(1, .*\)"),
    "added-dtype": ({"added": lambda r: r.int()}, "added must be float64, float32, .* or float16, got torch.int32"),
    "added-device": ({"added": lambda r: r.to("meta")}, "added must be on input's device cpu, got meta"),
    "added-number": ({"added": lambda r: 0}, "added must be a torch.Tensor or None, got int"),
    "added-sparse": ({"added": lambda r: r.to_sparse()}, "added must be a dense tensor, got torch.sparse_coo"),
    "activation": ({"activation": lambda a: "swish"}, "activation must be None or one of .*relu.*, got 'swish'"),
    "activation-function": ({"activation": lambda a: torch.relu}, "activation must be None or one of .*, got .*relu"),
    "backend": ({"backend": lambda b: "cuda"}, "backend must be one of triton, native, reference, got 'cuda'"),
}  # fmt: skip
# and of one op or some
SHAPE_WRONG = {
    "other": (5, r"input must end in normalized_shape \(5,\), got shape \(6, 33\)"),
    "longer": ((2, 6, 33), r"input must end in normalized_shape \(2, 6, 33\), got shape \(6, 33\)"),
    "empty": ((), r"normalized_shape must have at least one dimension, got \(\)"),
}


def fails(op, message, sample, **changes):
    """The call raises ValueError with that message, on one line, and writes into none of its tensors."""
    given = sample.present() | {k: v for k, v in changes.items() if isinstance(v, torch.Tensor) and not v.is_meta}
    copies = {k: t.clone() for k, t in given.items()}
    state = {k: given[k] for k in op.state if k in given}  # itself, not a copy
    with pytest.raises(ValueError, match=f"^{op.stem}: {message}") as caught:
        call(op, sample, **(state | changes))
    assert "\n" not in str(caught.value)
    assert all(t.layout != torch.strided or torch.equal(t, copies[k]) for k, t in given.items())


def wrong_call(op, wrong):
    """The message, the sample, and what replaces some of its arguments."""
    change, message = WRONG[wrong]
    sample = small(op, added=True)
    changes = {k.replace("added", op.added): f for k, f in change.items()}
    return message.replace("added", op.added), sample, {k: f(sample.tensors.get(k)) for k, f in changes.items()}


# RMS norm takes a weight and a bias of any floating dtype
TAKEN = [("rms_norm", "weight-dtype"), ("rms_norm", "weight-16-bit")]


@pytest.mark.parametrize(
    ("op", "wrong"), [(op, w) for op in NORMS for w in WRONG if (op.stem, w) not in TAKEN], ids=str
)
def test_wrong_argument(op, wrong):
    message, sample, changes = wrong_call(op, wrong)
    fails(op, message, sample, **changes)


@pytest.mark.parametrize(
    ("op", "wrong"),
    [
        (op, w)
        for op in NORMS
        for w in WRONG
        if "bias" in op.parameters and w.startswith("weight") and (op.stem, w) not in TAKEN
    ],
    ids=str,
)
def test_wrong_bias(op, wrong):
    change, message = WRONG[wrong]
    sample = small(op)
    fails(op, message.replace("weight", "bias"), sample, bias=change["weight"](sample.tensors["bias"]))


@pytest.mark.parametrize("wrong", SHAPE_WRONG)
@pytest.mark.parametrize("stem", ["layer_norm", "rms_norm"])
def test_wrong_normalized_shape(stem, wrong):
    shape, message = SHAPE_WRONG[wrong]
    fails(OPS[stem], message, small(OPS[stem]), normalized_shape=shape)


RUNNING = {"running_mean": torch.zeros(33), "running_var": torch.ones(33)}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("stem", ["batch_norm", "instance_norm"])
def test_a_failed_call_leaves_running_statistics(stem, wrong):
    message, sample, changes = wrong_call(OPS[stem], wrong)
    fails(OPS[stem], message, sample, **(RUNNING | changes))


# op, changed arguments, the text after "<op>: "; with running statistics, which must be left as they were
CHANNELS_WRONG = {
    "one-dim": (
        "batch_norm",
        {"input": torch.ones(33)},
        r"input must have at least 2 dimensions .*, got .*\(33,\)",
    ),
    "one-dim-instance": ("instance_norm", {"input": torch.ones(33)}, r"input must have at least 2 dimensions \(N, C"),
    "other-channels": (
        "batch_norm",
        {"input": torch.ones(6, 34)},
        r"input must have 33 channels in dim 1, as weight has values, got shape \(6, 34\)",
    ),
    "mean-size": ("batch_norm", {"running_mean": torch.zeros(5)}, r"running_mean must have shape \(33,\), got \(5,\)"),
    "var-size": ("instance_norm", {"running_var": torch.ones(5)}, r"running_var must have shape \(33,\), got \(5,\)"),
    "mean-dtype": ("batch_norm", {"running_mean": torch.zeros(33).double()}, "running_mean must have input's dtype"),
    "var-device": ("batch_norm", {"running_var": torch.ones(33).to("meta")}, "running_var must be on input's device"),
    "mean-number": ("instance_norm", {"running_mean": 0.0}, "running_mean must be a torch.Tensor or None, got float"),
    "mean-alone": ("batch_norm", {"running_var": None}, "running_var must come with its twin, got None"),
    "var-alone": ("instance_norm", {"running_mean": None}, "running_mean must come with its twin, got None"),
    "eval-without": (
        "batch_norm",
        {"training": False, "running_mean": None, "running_var": None},
        "running_mean must be given where no statistics are taken from input, got None",
    ),
    "eval-without-var": (
        "instance_norm",
        {"use_input_stats": False, "running_var": None},
        "running_var must be given where no statistics are taken from input, got None",
    ),
    "one-value": (
        "batch_norm",
        {"input": torch.ones(1, 33, 1, 1)},
        r"input must have more than one value per channel in training \(OnlineNorm, .*\), got shape \(1, 33, 1, 1\)",
    ),
    "one-pixel": (
        "instance_norm",
        {"input": torch.ones(6, 33, 1)},
        r"input must have more than one value per channel of an instance \(BatchNorm, .*\), got shape \(6, 33, 1\)",
    ),
}


@pytest.mark.parametrize("wrong", CHANNELS_WRONG)
def test_wrong_channels(wrong):
    stem, changes, message = CHANNELS_WRONG[wrong]
    fails(OPS[stem], message, small(OPS[stem]), **(RUNNING | changes))


@pytest.mark.parametrize("groups", [0, -3, 2, 34])
def test_wrong_number_of_groups(groups):
    message = f"num_groups must divide the 33 channels of input, got {groups}"
    fails(OPS["group_norm"], message, small(OPS["group_norm"]), num_groups=groups)


def test_one_value_per_group():
    op = OPS["group_norm"]
    message = r"input must have more than one value per group, got shape \(1, 33\)"
    fails(op, message, small(op), input=torch.ones(1, 33), num_groups=33)


def test_wrong_rank_of_an_image():
    op = OPS["layer_norm_2d"]
    fails(
        op,
        r"input must have at least 3 dimensions \(B, C, \*\), got shape \(6, 33\)",
        small(op),
        input=torch.ones(6, 33),
    )


@pytest.mark.parametrize("op", [op for op in NORMS if op.stem not in ("layer_norm", "rms_norm")], ids=str)
def test_nested_tensor(op):
    nested = torch.nested.nested_tensor([torch.ones(2, 33), torch.ones(3, 33)], layout=torch.jagged)
    fails(op, "input must be a dense tensor, got a nested tensor", small(op), input=nested)


@pytest.mark.parametrize("op", [op for op in NORMS if op.stem != "rms_norm"], ids=str)
def test_sixteen_bit_rule_names_float32(op):
    """Beside 16-bit input the message says that float32 parameters are welcome."""
    sample = small(op, dtype=torch.bfloat16)
    weight = sample.tensors["weight"].double()
    fails(op, "weight must have input's dtype torch.bfloat16 or float32, got torch.float64", sample, weight=weight)
