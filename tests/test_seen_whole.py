"""Dynamo puts a public function into its graph as it is: few guards, and what may change is one of them."""

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import normkernels as nk

F = nk.functional


def compiled(call, **options):
    torch._dynamo.reset()
    return torch.compile(call, **options)


def norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, (8,), weight)


def test_guards_are_few():
    """Of one call: two tensors, the function, the backend asked for. There were 260 when Dynamo looked inside."""
    x = torch.randn(4, 8)
    compiled(norm, backend="eager", fullgraph=True)(x, torch.ones(8))
    (entry,) = torch._dynamo.eval_frame._debug_get_cache_entry_list(norm.__code__)
    assert str(entry.guard_manager).count("+- ") <= 60


class Block(nn.Module):
    """What ``convert`` fuses, around a norm that is told by what it computes: Llama's."""

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = self.Norm(), nn.LayerNorm(8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.layer_norm(self.second(self.first(x) + y), 8)  # ours, so that what one of them costs is in both


def guards(model: nn.Module) -> int:
    def call(x: Tensor) -> Tensor:
        for block in model:
            x = block(x, x)
        return x

    compiled(call, backend="eager", fullgraph=True)(torch.randn(4, 8))
    (entry,) = torch._dynamo.eval_frame._debug_get_cache_entry_list(call.__code__)
    return str(entry.guard_manager).count("+- ")


def test_a_converted_model_is_guarded_like_itself():
    """Of each norm no more than before, and none of what is rewritten around it."""
    few, many = (nn.Sequential(*(Block() for _ in range(n))) for n in (1, 9))
    before = guards(many) - guards(few)
    assert sum(len(nk.convert(m).fused) for m in (few, many)) == 10
    assert guards(many) - guards(few) <= before


def test_another_backend_is_another_graph():
    """And the first one again where nobody asks any more."""
    counter = CompileCounterWithBackend("aot_eager")
    call, x = compiled(norm, backend=counter, fullgraph=True), torch.randn(4, 8)
    for name in (None, "reference", None, "reference"):
        with nk.use_backend(name):
            torch.testing.assert_close(call(x), norm(x))
    assert counter.frame_count == 2


def test_a_refused_backend_is_refused():
    """Under a transform, where only ordinary ops can run."""
    call = compiled(torch.func.vmap(norm), backend="aot_eager")
    with nk.use_backend("native"), pytest.raises(RuntimeError, match="native"):
        call(torch.randn(4, 8))


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda x: F.layer_norm(x, 8, torch.ones(5)), ValueError, "layer_norm: weight must have shape"),
        (lambda x: F.layer_norm(x, 8, activation="rel"), ValueError, "did you mean 'relu'"),
        (lambda x: F.layer_norm(x, 8, epsilon=1.0), TypeError, "did you mean 'eps'"),
        (lambda x: F.batch_norm(x[:1], None, None, training=True), ValueError, "batch_norm: input must have more"),
    ],
)
def test_errors_say_what_was_wrong(call, kind, said):
    """With ``fullgraph`` in Dynamo's error, else as without a compiler."""
    x = torch.randn(4, 8)
    with pytest.raises(Exception, match=said):
        compiled(call, backend="eager", fullgraph=True)(x)
    with pytest.raises(kind, match=said):
        compiled(call, backend="eager")(x)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_running_statistics_move_once(backend):
    """What is written inside is seen by the compiler, whichever way it goes on."""
    ours, twin = nk.BatchNorm2d(4, activation="relu"), nk.BatchNorm2d(4, activation="relu")
    call = compiled(lambda x: ours(2 * ours(x)), backend=backend, fullgraph=True)
    for _ in range(2):
        x = torch.randn(2, 4, 3, 3)
        torch.testing.assert_close(call(x), twin(2 * twin(x)))
        torch.testing.assert_close(dict(ours.named_buffers()), dict(twin.named_buffers()))


def test_under_transforms_inside_a_graph():
    x, w = torch.randn(3, 4, 8), torch.rand(8)

    def each(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.vmap(lambda t: norm(t, w))(x)

    def slope(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.grad(lambda t: norm(t, w).square().sin().sum())(x)

    for call in (each, slope):
        torch.testing.assert_close(compiled(call, backend="aot_eager", fullgraph=True)(x, w), call(x, w))


def test_recomputed_in_a_checkpoint():
    """Activation checkpointing of a compiled call: gradients and statistics as without, which move once."""
    ours, twin = nk.BatchNorm1d(8), nk.BatchNorm1d(8)
    x = torch.randn(6, 8, requires_grad=True)

    def step(x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(lambda t: norm(ours(t)).sin(), x, use_reentrant=False)

    call = compiled(step, backend="aot_eager", fullgraph=True)
    found, wanted = (torch.autograd.grad(y.square().sum(), x)[0] for y in (call(x), norm(twin(x)).sin()))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(twin.named_buffers()))


def test_without_gradients_then_with():
    """One function, two graphs."""
    counter = CompileCounterWithBackend("aot_eager")
    call, x = compiled(norm, backend=counter, fullgraph=True), torch.randn(4, 8, requires_grad=True)
    with torch.no_grad():
        assert not call(x).requires_grad
    torch.testing.assert_close(torch.autograd.grad(call(x).sin().sum(), x), torch.autograd.grad(norm(x).sin().sum(), x))
    assert counter.frame_count == 2
