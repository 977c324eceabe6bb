"""What norms take over in nk.convert."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normkernels as nk
from normkernels.conversion.activations import MODULES
from tests.test_convert import same, used


class ResidualBlock(nn.Module):
    """As in a ResNet; ``how`` says how it adds and activates."""

    def __init__(self, how: str = "in place") -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.first, self.second, self.none = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.Identity()
        self.act, self.how = nn.SiLU(inplace=how == "in place"), how

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        y = self.act(self.none(self.first(self.conv(x))))
        y = self.second(self.again(y))
        if scale is not None:
            y = y * scale
        if self.how == "in place":
            y += x
            return self.act(y)
        return F.leaky_relu(torch.add(x, y), 0.2)


class TransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other, self.mix = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm(x))
        return x + F.gelu(self.other(x), approximate="tanh")


def converted(model: nn.Module) -> tuple[nn.Module, list[str]]:
    model = copy.deepcopy(model)
    return model, [f"{n.name} {n.text}" for n in nk.convert(model).fused]


@pytest.mark.parametrize("how", ["in place", "not"])
def test_a_residual_block(how):
    torch.manual_seed(0)
    block = used(ResidualBlock(how))
    with torch.no_grad():
        for p in (block.conv.weight, block.again.weight):
            p.normal_(0, 0.1)
    ours, fused = converted(block)
    act = "silu" if how == "in place" else "leaky_relu"
    assert fused == ["first with silu", f"second with its skip and {act}"]
    x = torch.randn(2, 6, 5, 5)
    same(block, ours, x)
    torch.testing.assert_close(ours(x, 2.0), block(x, 2.0))  # traced for None
    torch.testing.assert_close(ours.first(x), block.first(x))  # the norm itself is as it was
    nk.revert(ours)
    assert "forward" not in vars(ours)
    same(block, ours, x)


def test_what_changed_since_goes_the_old_way():
    torch.manual_seed(0)
    block, x = used(ResidualBlock()).eval(), torch.randn(2, 6, 5, 5)
    ours, _ = converted(block)
    for change in (
        lambda m: setattr(m, "how", "not"),
        lambda m: setattr(m, "none", nn.Tanh()),
        lambda m: setattr(m, "act", nn.ReLU()),
        lambda m: m.first.register_forward_hook(lambda *a: a[2] * 2),
        lambda m: setattr(m, "second", nn.Identity()),
    ):
        for m in (block, ours):
            change(m)
        torch.testing.assert_close(ours(x), block(x))


def test_a_transformer_block():
    torch.manual_seed(0)
    block = used(TransformerBlock())
    ours, fused = converted(block)
    assert fused == ["other with its residual and gelu_tanh"]
    same(block, ours, torch.randn(4, 6))
    same(block, ours, torch.randn(6))


def test_a_sum_that_broadcasts():
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.channels = nn.LayerNorm(6), nn.BatchNorm1d(4)

        def forward(self, x: Tensor, place: Tensor) -> Tensor:
            return self.channels(self.rows(x + place)) + place

    torch.manual_seed(0)
    model = used(Added())
    ours, fused = converted(model)
    assert fused == ["rows with its residual", "channels with its skip"]
    for place in (torch.randn(4, 6), torch.randn(3, 4, 6)):
        x = torch.randn(3, 4, 6)
        torch.testing.assert_close(ours(x, place), model(x, place))


def test_a_sequence():
    torch.manual_seed(0)
    act = nn.ReLU()
    model = nn.Sequential(
        nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 6), nn.BatchNorm1d(6), act, nn.RMSNorm(6), act
    )
    ours, fused = converted(used(model))
    assert fused == ["1 with gelu"]
    assert type(ours[2]) is nn.Identity
    same(model, ours, torch.randn(4, 6))
    nk.revert(ours)
    assert repr(ours) == repr(model)


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
def test_every_activation(kind):
    torch.manual_seed(0)
    model = used(nn.Sequential(nn.LayerNorm(6), kind()))
    ours, fused = converted(model)
    assert fused == [f"0 with {MODULES[kind]}"]
    same(model, ours, 3 * torch.randn(8, 6))


def test_activations_that_ours_do_not_have():
    unusual = (nn.ELU(2.0), nn.Hardtanh(0.0, 1.0), nn.Softplus(2.0), nn.PReLU(), nn.Softmax(-1))
    for act in unusual:
        assert not converted(nn.Sequential(nn.LayerNorm(6), act))[1]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return y + y.relu() + self.norm(y)


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).relu() if x.sum() > 0 else self.norm(x)


class Touched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.rows = nn.BatchNorm1d(6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        z = x * 2
        y = self.norm(z)
        z.mul_(3)
        s = y + z
        t = self.rows(s)
        s.mul_(2)
        return t + s


class TouchedThroughAView(Touched):
    def forward(self, x: Tensor) -> Tensor:
        z = x * 2
        view = z[:]
        y = self.norm(z)
        view.mul_(3)
        return y + x


@pytest.mark.parametrize("kind", [Twice, Hidden, Touched, TouchedThroughAView])
def test_nothing_is_fused_where_it_is_not_sure(kind):
    torch.manual_seed(0)
    model = used(kind())
    ours, fused = converted(model)
    assert not fused
    x = torch.randn(4, 6)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), model(x))


def test_nothing_is_fused_where_somebody_listens_or_nobody_asked():
    block = ResidualBlock()
    block.second.register_forward_hook(lambda *_: None)
    assert converted(block)[1] == ["first with silu"]
    assert not nk.convert(block, fuse=False).fused
    assert "forward" not in vars(block)


def test_a_rewritten_forward_is_copied_saved_compiled_and_moved():
    torch.manual_seed(0)
    block = used(ResidualBlock())
    ours, _ = converted(block)
    file, x = io.BytesIO(), torch.randn(2, 6, 5, 5)
    torch.save(ours, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for made in (copy.deepcopy(ours), loaded, torch.compile(copy.deepcopy(ours), backend="eager", fullgraph=True)):
        torch.testing.assert_close(made.train()(x), copy.deepcopy(block).train()(x))
    moved = copy.deepcopy(ours).double()
    moved.load_state_dict({k: t.double() for k, t in block.state_dict().items()}, assign=True)
    torch.testing.assert_close(moved(x.double()), copy.deepcopy(block).double()(x.double()))
