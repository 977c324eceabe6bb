"""PyTorch's own tables of functions and modules: what its tests ask of each beyond the values, asked of ours."""

import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

import normkernels as nk

pytest.importorskip("expecttest", reason="torch's test helpers import it")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's test helpers import what is deprecated
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

FUNCTIONS = ("batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm")
INFOS = [o for o in op_db if o.name.removeprefix("nn.functional.") in FUNCTIONS and not o.variant_test_name]
# ours, and the twin whose inputs it takes; what is layer- or batch-normalised refuses what torch's layers refuse
TWINS = {name: name for name in ("GroupNorm", "LayerNorm", "RMSNorm")}
TWINS |= {f"{kind}Norm{n}d": f"{kind}Norm{n}d" for kind in ("Batch", "Instance") for n in (1, 2, 3)}
TWINS |= {f"LayerNorm{kind}{cell}": kind + cell for kind in ("RNN", "LSTM", "GRU") for cell in ("", "Cell")}
MODULES = {m.name.removeprefix("nn."): m for m in module_db}

every_function = pytest.mark.parametrize("info", INFOS, ids=lambda o: o.name.rpartition(".")[2])
every_twin = pytest.mark.parametrize("name", TWINS)


def samples(info, limit=12, **options):
    """Of the inputs that torch tests with: those with a batch and no negative eps, for ours refuse the others."""
    found = [s for s in info.sample_inputs("cpu", torch.float64, **options) if s.input.dim() > 1 and s.input.numel()]
    return [s for s in found if (s.kwargs.get("eps") or 0) >= 0][:limit]


def ours(info):
    return getattr(nk.functional, info.name.rpartition(".")[2])


@pytest.mark.filterwarnings("ignore")
@every_function
def test_gradients(info):
    """Backward, batched gradients, forward mode and batched forward mode against finite differences."""
    for sample in samples(info, requires_grad=True):
        tensors = [sample.input, *sample.args, *sample.kwargs.values()]
        leaves = [t for t in tensors if isinstance(t, torch.Tensor) and t.requires_grad]

        def function(*leaves, sample=sample, tensors=tensors):
            given = iter(leaves)
            full = [next(given) if isinstance(t, torch.Tensor) and t.requires_grad else _copy(t) for t in tensors]
            args, named = full[: 1 + len(sample.args)], full[1 + len(sample.args) :]
            return ours(info)(*args, **dict(zip(sample.kwargs, named, strict=True)))

        assert gradcheck(
            function, leaves, check_batched_grad=True, check_forward_ad=True, check_batched_forward_grad=True
        )


def _copy(value):
    return value.clone() if isinstance(value, torch.Tensor) else value


@every_function
def test_fake_tensors(info):
    """Shape, dtype and strides that a fake tensor promises, and a meta tensor."""
    for sample in samples(info):
        call = sample.args, sample.kwargs
        real = ours(info)(sample.input, *map(_copy, call[0]), **{k: _copy(v) for k, v in call[1].items()})
        with FakeTensorMode() as mode:
            given = torch.utils._pytree.tree_map_only(torch.Tensor, mode.from_tensor, (sample.input, *call))
            fake = ours(info)(given[0], *given[1], **given[2])
        given = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), (sample.input, *call))
        meta = ours(info)(given[0], *given[1], **given[2])
        for promised in (fake, meta):
            assert (promised.shape, promised.dtype) == (real.shape, real.dtype)
        assert fake.stride() == real.stride()


@every_function
def test_error_inputs(info):
    """What torch's function refuses ours does, with an exception that the same except clause catches."""
    if info.error_inputs_func is None:
        pytest.skip("torch has none")
    for error in info.error_inputs("cpu"):
        sample = error.sample_input
        with pytest.raises(error.error_type):
            ours(info)(sample.input, *sample.args, **sample.kwargs)


@every_twin
def test_module_error_inputs(name):
    info = MODULES[TWINS[name]]
    if info.module_error_inputs_func is None:
        pytest.skip("torch has none")
    for error in info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=False, training=1
    ):
        made, given = error.module_error_input.constructor_input, error.module_error_input.forward_input
        made.kwargs.pop("nonlinearity", None) if "RNN" not in name else None
        with pytest.raises(error.error_type, match=error.error_regex or ""):
            getattr(nk, name)(*made.args, **made.kwargs)(*given.args, **given.kwargs)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_twin
def test_module_inputs(name, training):
    """Every constructor and input that torch tests its twin with is taken, and gives what the twin promises."""
    info = MODULES[TWINS[name]]
    settings = {"device": "cpu", "dtype": torch.float64, "requires_grad": True, "training": training}
    for inputs in info.module_inputs_func(info, **settings):
        made, given = inputs.constructor_input, inputs.forward_input
        if "proj_size" in made.kwargs:
            continue
        module = getattr(nk, name)(*made.args, **made.kwargs).double().train(training)
        twin = info.module_cls(*made.args, **made.kwargs).double().train(training)
        got, want = module(*given.args, **given.kwargs), twin(*given.args, **given.kwargs)
        shapes = [torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.shape, y) for y in (got, want)]
        assert shapes[0] == shapes[1]
