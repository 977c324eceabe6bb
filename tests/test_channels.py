"""What only the channel family has: running statistics, constants of eval mode, and what backward keeps."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from common import DEVICES, call, every_channel_op, every_layout, every_target, need, small
from torch.utils.checkpoint import checkpoint

from normkernels import tolerance
from normkernels._backends import unusable
from normkernels.cases import OPS
from normkernels.tolerance import check, run

TRACKING = pytest.mark.parametrize("stem", ["batch_norm", "instance_norm"])
# input, running statistics
DTYPES = {
    "float64": (torch.float64, torch.float64),
    "float32": (torch.float32, torch.float32),
    "bfloat16+float32": (torch.bfloat16, torch.float32),
}


@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("momentum", [0.1, 1.0])
@every_layout
@TRACKING
@every_target
def test_running_statistics(stem, backend, device, layout, momentum, dtypes):
    """Several steps of training give torch's running statistics, and eval uses them as torch does."""
    need(OPS[stem], backend, device)
    torch.manual_seed(0)
    ours = torch.zeros(7, dtype=dtypes[1], device=device), torch.ones(7, dtype=dtypes[1], device=device)
    theirs = [t.clone() for t in ours]
    twin = getattr(F, stem)
    for _ in range(3):
        x = layout(3 + 2 * torch.randn(4, 7, 5, 3, device=device, dtype=dtypes[0]))
        OPS[stem].function(x, *ours, None, None, True, momentum, backend=backend)
        twin(x.to(dtypes[1]), *theirs, None, None, True, momentum)
    torch.testing.assert_close(list(ours), theirs)
    before = [t.clone() for t in ours]
    y = OPS[stem].function(x, *ours, None, None, False, momentum, backend=backend)
    torch.testing.assert_close(y, twin(x.to(dtypes[1]), *theirs, None, None, False).to(dtypes[0]))
    assert all(map(torch.equal, ours, before))


@TRACKING
def test_an_empty_batch_leaves_running_statistics(stem):
    running = torch.randn(7), torch.rand(7)
    before = [t.clone() for t in running]
    y = OPS[stem].function(torch.ones(0, 7, 3), *running, None, None, True)
    assert y.shape == (0, 7, 3)
    assert all(map(torch.equal, running, before))


@TRACKING
def test_constants_of_eval_may_change_before_backward(stem):
    """A step of training between the forward in eval mode and its backward changes no gradient."""
    running = torch.randn(7, dtype=torch.float64), torch.rand(7, dtype=torch.float64)
    x = torch.randn(4, 7, 5, dtype=torch.float64, requires_grad=True)
    w, dy = torch.randn(7, dtype=torch.float64, requires_grad=True), torch.randn(4, 7, 5, dtype=torch.float64)
    want = torch.autograd.grad(OPS[stem].function(x, *running, w, None, False), [x, w], dy)
    y = OPS[stem].function(x, *running, w, None, False)
    OPS[stem].function(x, *running, None, None, True)
    assert all(map(torch.equal, torch.autograd.grad(y, [x, w], dy), want))


@every_layout
@every_target
def test_batch_norm_of_one_image_is_instance_norm(backend, device, layout):
    ops = OPS["batch_norm"], OPS["instance_norm"]
    for op in ops:
        need(op, backend, device)
    sample = small(ops[0], 1, 20, torch.float64, device, added=True, activation="tanh")
    x, s = (layout(sample.tensors[k]).requires_grad_() for k in ("input", "skip"))
    rest = {"weight": sample.tensors["weight"], "bias": sample.tensors["bias"], "skip": s, "activation": "tanh"}
    ys = [ops[0].function(x, None, None, **rest, training=True), ops[1].function(x, **rest)]
    torch.testing.assert_close(*ys)
    torch.testing.assert_close(*(torch.autograd.grad(y, [x, s], sample.cotangents) for y in ys))


@every_target
def test_groups_at_both_ends(backend, device):
    """C groups are instance norm; one value for each statistic leaves bias and skip, and no gradient."""
    op = OPS["group_norm"]
    need(op, backend, device)
    sample = small(op, 3, 20, torch.float64, device)
    want = OPS["instance_norm"].function(**sample.present(), backend=backend)
    torch.testing.assert_close(call(op, sample, backend, num_groups=20), want)
    x, b, s = (torch.randn(n, 6, dtype=torch.float64, device=device) for n in (3, 1, 3))
    y = op.function(x.requires_grad_(), 6, None, b[0], skip=s, backend=backend)
    torch.testing.assert_close(y, b + s)
    torch.testing.assert_close(torch.autograd.grad(y, x, s)[0], torch.zeros_like(x), rtol=0, atol=1e-9)


@every_target
@every_channel_op
def test_two_forwards_before_a_backward(op, backend, device):
    """Statistics belong to a call: a second one, as in a siamese net, does not disturb the first."""
    need(op, backend, device)
    a, b = small(op, added=True, device=device, activation="relu"), small(op, 5, device=device, activation="silu")
    xs = [sample.tensors["input"].requires_grad_() for sample in (a, b)]
    want = [torch.autograd.grad(call(op, s, backend), x, s.cotangents)[0] for s, x in zip((a, b), xs, strict=True)]
    ys = [call(op, sample, backend) for sample in (a, b)]
    assert all(map(torch.equal, torch.autograd.grad(ys, xs, [*a.cotangents, *b.cotangents]), want))


@every_target
@every_channel_op
def test_checkpointing(op, backend, device):
    """A forward that is run again in backward gives the same bits."""
    need(op, backend, device)
    sample = small(op, added=True, device=device, activation="relu")
    x = sample.tensors["input"].requires_grad_()
    again = checkpoint(lambda t: call(op, sample, backend, input=t), x, use_reentrant=False)
    got, want = (torch.autograd.grad(y, x, sample.cotangents)[0] for y in (again, call(op, sample, backend)))
    assert torch.equal(got, want)


@pytest.mark.parametrize(("activation", "kept"), [(None, ["input"]), ("relu", ["input", "skip"])])
@every_layout
@every_channel_op
def test_what_backward_keeps(op, layout, activation, kept):
    """Of the size of x only x itself, and skip where an activation follows: no copy, no xhat, no mask, no y."""
    sample = small(op, added=True, activation=activation)
    tensors = {k: layout(t) if t.dim() == 4 else t for k, t in sample.present().items()}
    tensors = {k: t.detach().requires_grad_(k not in op.state) for k, t in tensors.items()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        op.function(**tensors, **sample.call)
    large = [t.data_ptr() for t in saved if t.numel() >= tensors["input"].numel()]
    assert large == [tensors[k].data_ptr() for k in kept]


@every_channel_op
def test_statistics_of_16_bit_input_are_float32(op):
    """Parameters and running statistics in 16 bits do not make the mean one: 300 + noise keeps its variance."""
    x = (300 + torch.randn(4, 8, 9, 9)).to(torch.bfloat16)
    sample = small(op, 4, 8, torch.bfloat16)
    state = {k: sample.tensors[k] for k in op.state if k in sample.present()}
    wide = {k: t.double() for k, t in state.items()}
    y = op.function(x, **state, **sample.call, backend="reference")
    want = op.function(x.double(), **wide, **sample.call, backend="reference")
    torch.testing.assert_close(y, want.to(torch.bfloat16))


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_large_batches_have_the_bits_of_their_images(channels_last, dtype, activation):
    """Results too large for the caches are written another way, but it is the same arithmetic."""
    op = OPS["group_norm"]
    need(op, "native", "cpu")
    rows = 128 if dtype == torch.float32 else 256
    sample = op.make((2, 64, rows, 256), dtype, "cpu", skip=True, activation=activation, channels_last=channels_last)
    batch = run(op, sample.call, sample.present(), list(sample.cotangents), "native")
    parts = {k: sample.tensors[k] for k in ("input", "skip")}
    for i in range(2):
        alone = sample.present() | {k: t[i : i + 1] for k, t in parts.items()}
        found = run(op, sample.call, alone, [dy[i : i + 1] for dy in sample.cotangents], "native")
        for name in ("output 0", "grad input", "grad skip"):
            assert torch.equal(found[name][0], batch[name][i]), f"{name}, image {i}"


@pytest.mark.parametrize("merging", ["where applied", "apart"])
@pytest.mark.parametrize("shape", [(2, 5, 20, 21), (9, 4, 3, 2)], ids=lambda s: "x".join(map(str, s)))
@every_layout
@pytest.mark.parametrize("device", DEVICES)
@every_channel_op
def test_walked_in_triton(op, device, layout, shape, merging, monkeypatch):
    """Programs that walk several tiles, which only huge tensors make them do, and both ways to merge their results."""
    need(op, "triton", device)
    from normkernels._backends.triton.channels import merged_backward, merged_forward, sizes

    if merging == "apart":
        monkeypatch.setattr(merged_forward, "RECORDS", (0, 0))
    monkeypatch.setattr(merged_backward, "HELD", {8: 16})  # nothing here is so small
    monkeypatch.setattr(merged_backward, "PROGRAMS", 6 if merging == "apart" else 64)  # several tiles or one to each
    monkeypatch.setattr(sizes, "PARTS", 3)
    for way in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(sizes, f"{way}_LIMIT", {8: 16})
        monkeypatch.setattr(sizes, f"{way}_TILE", {8: (128, 4)})
    sample = op.make(shape, torch.float64, "cpu", skip=True, activation="silu")
    tensors = {k: layout(t) if t.dim() > 1 else t for k, t in sample.present().items()}
    wrong = [
        str(r) for r in check(op, replace(sample, tensors=tensors), "triton", torch.float64, device) if r.worst > 1
    ]
    assert not wrong, "\n".join(wrong)


@every_layout
@every_target
def test_moments_when_the_first_value_lies_far_off(backend, device, layout):
    """Sums are taken about a value near the mean, also where the value that comes first is not."""
    need(OPS["batch_norm"], backend, device)
    torch.manual_seed(0)
    x = torch.randn(1, 64, 4, 8, device=device)
    x[:, :, 0, 0] = 1e4
    running = torch.zeros(64, device=device), torch.zeros(64, device=device)
    OPS["batch_norm"].function(layout(x), *running, None, None, True, 1.0, backend=backend)
    want = x.double().var((0, 2, 3))
    ulps = (running[1] - want).abs() / want / torch.finfo(torch.float32).eps
    assert ulps.max() < 4


@pytest.mark.parametrize("channels", [64, 512, 640, 3000])
@pytest.mark.parametrize("extras", [{}, {"activation": "relu"}, {"activation": "relu", "added": True}], ids=str)
@pytest.mark.skipif(unusable("native", "batch_norm_fwd", "cpu") is not None, reason="not built")
def test_channels_last_past_the_caches(channels, extras, monkeypatch):
    """16 MB and more of few and many channels: what backward leaves between its sweeps goes past the caches too."""
    monkeypatch.setattr(tolerance, "DRAWS", 1)
    op = OPS["batch_norm"]
    sample = small(op, (16 << 20) // (4 * 6 * channels) + 1, channels, **extras)
    tensors = {k: lying(t) for k, t in sample.tensors.items()}
    tensors["bias"] = torch.tensor([16.0, -16.0]).repeat(channels // 2)  # among so many values one lies on a kink
    assert not [str(r) for r in check(op, replace(sample, tensors=tensors), "native", torch.float32) if r.worst > 1]


def lying(t: torch.Tensor | None) -> torch.Tensor | None:
    """An image with its channels last."""
    return t.contiguous(memory_format=torch.channels_last) if t is not None and t.dim() == 4 else t
