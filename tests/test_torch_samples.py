"""PyTorch's own sample inputs for the channel family: ours against torch's on each of them."""

import warnings

import pytest
import torch
from common import every_target, need

import normkernels as nk
from normkernels.cases import OPS

pytest.importorskip("expecttest", reason="torch's test helpers import it")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's test helpers import what is deprecated
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

FUNCTIONS = {f"nn.functional.{stem}": stem for stem in ("batch_norm", "group_norm", "instance_norm")}
STEMS = {"GroupNorm": "group_norm"}
STEMS |= {f"{kind}Norm{n}d": f"{kind.lower()}_norm" for kind in ("Batch", "Instance") for n in (1, 2, 3)}
OP_INFOS = [o for o in op_db if o.name in FUNCTIONS and not o.variant_test_name]
MODULE_INFOS = [m for m in module_db if m.name.removeprefix("nn.") in STEMS]


def compare(ours, theirs, what):
    torch.testing.assert_close(ours, theirs, equal_nan=True, msg=lambda m: f"{what}: {m}")


def with_gradients(function, leaves):
    """What function() gives, and its gradients for a certain random cotangent."""
    y = function()
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("info", OP_INFOS, ids=lambda o: FUNCTIONS[o.name])
@every_target
def test_functions(info, dtype, backend, device):
    op = OPS[FUNCTIONS[info.name]]
    need(op, backend, device)

    def results(function, sample, **extra):
        given = [sample.input, *sample.args, *sample.kwargs.values()]
        given = [t.detach().clone().requires_grad_(t.requires_grad) if torch.is_tensor(t) else t for t in given]
        args, named = given[: 1 + len(sample.args)], given[1 + len(sample.args) :]
        tensors = [t for t in given if torch.is_tensor(t)]
        named = dict(zip(sample.kwargs, named, strict=True)) | extra
        found = with_gradients(lambda: function(*args, **named), [t for t in tensors if t.requires_grad])
        return found + [t for t in tensors if not t.requires_grad]  # the running statistics

    samples = [s for s in info.sample_inputs(device, dtype, requires_grad=True) if s.input.dim() > 1]
    samples = [s for s in samples if s.kwargs.get("eps", 0) >= 0]
    for sample in samples:  # but for an empty input of shape (0,) and a negative eps, which are errors here
        compare(results(op.function, sample, backend=backend), results(info.op, sample), sample)
    assert len(samples) >= 9


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("info", MODULE_INFOS, ids=lambda m: m.name)
@every_target
def test_modules(info, training, backend, device):
    name = info.name.removeprefix("nn.")
    need(OPS[STEMS[name]], backend, device)
    settings = {"device": device, "dtype": torch.float64, "requires_grad": True, "training": training}
    for inputs in info.module_inputs_func(info, **settings):
        made, (x,) = inputs.constructor_input, inputs.forward_input.args
        ours = getattr(nk, name)(*made.args, **made.kwargs, backend=backend).to(x)
        theirs = info.module_cls(*made.args, **made.kwargs).to(x)
        for p in ours.parameters():
            torch.nn.init.normal_(p)
        theirs.load_state_dict(ours.state_dict())
        results = []
        for module in (ours, theirs):
            module.train(training)
            found = with_gradients(lambda m=module, x=x: m(x), [x, *module.parameters()])
            results.append([*found, *module.buffers()])
        compare(*results, inputs.desc)
