"""Products, batch norms and activations that nk.convert makes layers of Normalization Propagation."""

import copy

import pytest
import torch
from torch import nn

import normkernels as nk
from tests.test_convert import used


def net(padding: int = 0) -> nn.Sequential:
    """Every rank and reshape on one way; biases, groups and nested Sequentials among them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, padding=padding), nn.BatchNorm2d(6), nn.ReLU()), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, groups=2, bias=False, padding=padding), nn.BatchNorm2d(8), nn.LeakyReLU(0.3),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.0),
        nn.Linear(32, 10), nn.BatchNorm1d(10), nn.Linear(10, 7, bias=False), nn.BatchNorm1d(7), nn.Tanh(),
        nn.Linear(7, 2),
    ).double()  # fmt: skip


def trained(model: nn.Module) -> nn.Module:
    """With statistics and parameters that are not ones and zeros."""
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            used(m)
            m.double()
    model.train()(torch.randn(8, 3, 12, 12, dtype=torch.float64))
    return model.eval()


def test_from_running_statistics_the_function_in_eval_is_the_same():
    model = trained(net())
    before, x = copy.deepcopy(model), torch.randn(4, 3, 12, 12, dtype=torch.float64)
    weights, gains = [m.weight for m in model.modules() if hasattr(m, "weight")], model[0][1].weight
    report = nk.convert(model, to="normprop")
    kinds = [type(m).__name__ for m in model.modules() if isinstance(m, nk.NormPropLinear | nk.NormPropConv2d)]
    assert kinds == ["NormPropConv2d", "NormPropConv2d", "NormPropLinear", "NormPropLinear"]
    assert report.left == []
    assert len(report.changed) == 8
    torch.testing.assert_close(model(x), before(x), rtol=1e-12, atol=1e-12)
    assert torch.equal(model.train()(x), model.eval()(x))  # a batch is not asked
    assert model[0][0].gain is gains
    assert {id(w) for w in weights} <= {id(p) for p in model.parameters()}
    model(x[:1]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_what_arrives_at_the_next_layer_is_standardised():
    """The constants of the activation are taken out, and come back only where a plain layer follows."""
    model = trained(net())
    nk.convert(model, to="normprop")
    assert type(model[0][1]) is nn.Identity
    assert [type(model[i]).__name__ for i in (3, 4, 9, 11, 12)] == [
        "Identity", "Identity", "Identity", "Affine", "Identity",
    ]  # fmt: skip
    x = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    first = model[0][0]
    c1, c2, _ = nk.activation_moments("relu")
    f = torch.relu(nk.functional.normprop_conv(x, first.weight, first.gain, first.bias, activation=None))
    torch.testing.assert_close(model[0](x), (f - c2) / c1)


@pytest.mark.parametrize("between", [nn.AvgPool2d(2, padding=1), nn.Sigmoid(), nn.InstanceNorm2d(4)], ids=repr)
def test_where_scale_and_shift_may_not_pass_they_come_back_before(between):
    layers = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), between, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    model = nn.Sequential(*layers).double()
    model(torch.randn(8, 4, 6, 6, dtype=torch.float64))
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    before = model.eval()(x)
    nk.convert(model, to="normprop")
    assert [type(model[i]).__name__ for i in (0, 1, 4, 5)] == ["NormPropConv2d", "Affine", "NormPropConv2d", "Identity"]
    torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)


def test_there_and_back():
    model = trained(net(padding=1))
    before, x = copy.deepcopy(model), torch.randn(4, 3, 12, 12, dtype=torch.float64)
    nk.convert(model, to="normprop")
    nk.revert(copy.deepcopy(model))  # a copy goes back alone
    copied = copy.deepcopy(model).float()
    nk.revert(model), nk.revert(copied)
    assert list(model.state_dict()) == list(copied.state_dict()) == list(before.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    for name, t in before.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], t, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(x), before(x))
    assert copied(x.float()).dtype == torch.float32


def test_back_after_training_keeps_what_was_learnt():
    model = trained(net())
    nk.convert(model, to="normprop")
    optimizer, x = torch.optim.SGD(model.parameters(), 0.1), torch.randn(4, 3, 12, 12, dtype=torch.float64)
    for _ in range(3):
        model(x).square().sum().backward()
        optimizer.step()
        nk.project_unit_norm_(model)
    wanted = model.eval()(x)
    nk.revert(model)
    torch.testing.assert_close(model(x), wanted)


def test_before_any_batch_it_starts_as_the_layers_do():
    model = net()
    nk.convert(model, to="normprop")
    torch.testing.assert_close(model[0][0].gain, torch.full_like(model[0][0].gain, 1 / 1.2111738962363166))
    assert not model[0][0].bias.any()
    nk.revert(model)
    torch.testing.assert_close(model[0][1].weight, torch.ones_like(model[0][1].weight))


def test_ours_with_an_activation_and_one_that_was_fused():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 6), nk.BatchNorm1d(6, activation="silu"), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()
    )
    model(torch.randn(8, 5))
    model.eval()
    x = torch.randn(4, 5)
    before = copy.deepcopy(model)
    nk.convert(model)
    nk.convert(model, to="normprop")
    assert [model[i].activation for i in (0, 2)] == ["silu", "relu"]
    torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-5)
    report = nk.revert(model)
    assert [n.module for n in report.left] == ["normkernels.BatchNorm1d"]
    assert type(model[4]) is nn.ReLU
    torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-5)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return x + self.norm(self.conv(x))


class Watched(nn.Sequential):
    """A Sequential only by its class."""

    def forward(self, input):
        return self[1](self[0](input)) + input


def hooked() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model[0].register_forward_hook(lambda *_: None)
    return model


def heard_as_a_whole() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model.register_forward_hook(lambda *_: None)
    return model


def twice() -> nn.Sequential:
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(nn.Conv2d(4, 4, 1), norm, nn.Conv2d(4, 4, 1), norm)


def tied() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model[1].weight = model[3].weight
    return model


LEFT = {
    "residual": Residual, "own forward": lambda: Watched(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), "hook": hooked,
    "heard as a whole": heard_as_a_whole, "twice": twice, "tied": tied,
    "no weight": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False)),
    "no product": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 1), nn.BatchNorm2d(4)),
    "parametrized": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4)),
}  # fmt: skip


@pytest.mark.parametrize("why", LEFT)
def test_what_is_left_says_why(why):
    model = LEFT[why]().eval()
    x = torch.randn(2, 4, 5, 5)
    before = model(x)
    report = nk.convert(model, to="normprop")
    assert report.changed == []
    assert {n.text.split()[0] for n in report.left} == {"NormProp"}
    assert torch.equal(model(x), before)


def test_a_frozen_one_says_so():
    model = nn.Sequential(nn.Linear(4, 4), nk.BatchNorm1d(4).freeze())
    assert [n.text for n in nk.convert(model, to="normprop").left] == ["its statistics are frozen"]
