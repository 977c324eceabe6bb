"""What a user writes, for type checkers alone: a line that ends in ``# wrong`` must be an error, and no other line."""

from typing import assert_type

import torch
from torch import Tensor, nn

import normkernels as nk
from normkernels import functional as F

x, image = torch.randn(4, 8), torch.randn(2, 8, 5, 5)

# calls of layers: what they return, and what they take
norm, batch = nk.LayerNorm(8, activation="gelu"), nk.BatchNorm2d(8, activation="relu")
assert_type(norm(x), Tensor)
assert_type(norm(x, residual=x), tuple[Tensor, Tensor])
assert_type(nk.LayerNorm2d(8)(image, image), tuple[Tensor, Tensor])
assert_type(nk.RMSNorm([4, 8])(x), Tensor)
assert_type(batch(image, skip=image), Tensor)
assert_type(nk.NormPropLinear(8, 4, torch.tanh)(x), Tensor)
assert_type(batch.freeze(), nk.BatchNorm2d)
batch(image, residual=image)  # wrong
norm(x, skip=x)  # wrong
norm(x, residual=1.0)  # wrong
shape = norm(x, residual=x).shape  # wrong
size = nk.GroupNorm(4, 8)(image, image).shape

# constructors
nk.LayerNorm(torch.Size([8]), eps=1e-6, bias=False, device="cpu", dtype=torch.float64)
nk.LayerNorm((4, 8), activation=nk.ACTIVATIONS[0])
nk.LayerNorm(8.0)  # wrong
nk.LayerNorm(8, eps="1e-5")  # wrong
nk.LayerNorm(8, activation="swish")  # wrong
nk.GroupNorm(4, 8, activation=torch.relu)  # wrong
nk.BatchNorm2d(8, momentum=None, skip=True)  # wrong

# functions
assert_type(F.layer_norm(x, 8), Tensor)
assert_type(F.layer_norm(x, (8,), residual=x, activation="silu"), tuple[Tensor, Tensor])
assert_type(F.group_norm(image, 4, skip=image), Tensor)
F.layer_norm(x, 8, skip=x)  # wrong
F.rms_norm(x, torch.ones(8))  # wrong
F.group_norm(image, 4, activation="Relu")  # wrong

# models
model = nn.Sequential(nn.Linear(8, 8), nk.LayerNorm(8))
assert_type(nk.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear)
assert_type(nk.parametrizations.weight_standardization(nn.Conv2d(8, 8, 3)), nn.Conv2d)
assert_type(nk.fold_(model), nn.Sequential)
assert_type(nk.activation_moments("relu").c1, float)
assert_type(nk.backends("cpu"), dict[str, dict[str, str | None]])
nk.convert(model, to=3)  # wrong
with nk.use_backend("reference"):
    total: Tensor = norm(x) + nk.OnlineNorm1d(8)(x)
