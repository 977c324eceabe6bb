"""Weight standardisation, with and without a gain."""

import torch.nn.functional as F
from torch import Tensor

from normkernels.cases._filters import filter_op
from normkernels.functional import weight_standardization


def weight_standardization_torch(w: Tensor, gain: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """As timm writes it."""
    if w.numel() <= len(w):  # torch refuses statistics of nothing or of one value
        return (w - w) * (1 if gain is None else gain.view(-1, *[1] * (w.dim() - 1)))
    return F.batch_norm(w.reshape(1, len(w), -1), None, None, gain, training=True, momentum=0.0, eps=eps).view(w.shape)


OP = filter_op(
    "weight_standardization", weight_standardization, weight_standardization_torch, "w", "gain",
    required=False, dims=False,
)  # fmt: skip
