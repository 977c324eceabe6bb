"""How nearly a layer's outputs are uncorrelated: what Normalization Propagation says of the filters alone."""

import torch
from torch import Tensor

from normkernels import _checks


def coherence(weight: Tensor) -> Tensor:
    r"""The largest cosine, in magnitude, between two filters of a layer.

    .. math::
        \mu = \max_{i \neq j} \frac{|W_i \cdot W_j|}{\|W_i\|_2 \|W_j\|_2}

    Args:
        weight: ``(m, *)``, filter i is ``weight[i]``, of a linear layer or a convolution: float64, float32, bfloat16 or
            float16.

    Returns:
        A tensor of no dims, from 0 to 1, in float32, or float64 where weight is; 0 of a single filter, and of filters
        of zeros, which have no direction. Differentiable.

    Raises:
        ValueError: weight is no dense floating tensor of two dims or more, or has no filter.

    Example:
        >>> nk.coherence(torch.tensor([[1.0, 0.0], [3.0, 3.0]]))
        tensor(0.7071)

    Source: Arpit et al. 2016, arXiv:1603.01431, proposition 1 and its footnote.
    """
    filters = _filters("coherence", weight)
    largest = filters.detach().abs().amax(1, keepdim=True)
    filters = filters / torch.where(largest == 0, 1, largest)  # squares of tiny and of huge filters are in range
    lengths = torch.linalg.vector_norm(filters, dim=1, keepdim=True)
    filters = filters / torch.where(largest == 0, 1, lengths)
    cosines = (filters @ filters.T).abs()
    apart = ~torch.eye(len(filters), dtype=torch.bool, device=weight.device)
    return torch.where(apart, cosines, 0).amax().clamp(max=1)


def canonical_error_bound(weight: Tensor, std: float = 1.0) -> Tensor:
    r"""How far the covariance of a linear layer's outputs can be from a diagonal, in the Frobenius norm.

    .. math::
        \min_\alpha \|\Sigma - \text{diag}(\alpha)\|_F \le
        \sigma^2 \mu \sqrt{\sum_{i \neq j} \|W_i\|_2^2 \|W_j\|_2^2}

    of :math:`u = W x` with :math:`\text{E}\,x = 0` and :math:`\text{E}\,x x^T = \sigma^2 I`, and :func:`coherence`
    :math:`\mu`. Of the unit filters of NormProp it is :math:`\sigma^2 \mu \sqrt{m (m - 1)}`. It holds for inputs that
    are white: correlated ones can exceed it.

    Args:
        weight: as in :func:`coherence`; of a convolution x is a patch.
        std: :math:`\sigma`.

    Returns:
        A tensor of no dims, in float32, or float64 where weight is. Differentiable.

    Raises:
        ValueError: as :func:`coherence`; or std is negative.

    Example:
        >>> nk.canonical_error_bound(torch.tensor([[1.0, 0.0], [3.0, 3.0]]))
        tensor(4.2426)

    Source: Arpit et al. 2016, arXiv:1603.01431, proposition 1.
    """
    filters = _filters("canonical_error_bound", weight)
    if not std >= 0:
        _checks.fail("canonical_error_bound", "std", "be at least 0", std)
    squares = filters.square().sum(1)
    pairs = 2 * (squares[1:] * squares.cumsum(0)[:-1]).sum()  # the whole square less its diagonal would cancel
    return std**2 * coherence(weight) * torch.where(pairs == 0, 1, pairs).sqrt()


def _filters(op: str, weight: Tensor) -> Tensor:
    """One a row, in the dtype of the arithmetic."""
    if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.dtype not in _checks.DTYPES:
        got = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        _checks.fail(op, "weight", "be a dense tensor of float64, float32, bfloat16 or float16", got)
    if weight.dim() < 2 or weight.numel() == 0:
        _checks.fail(op, "weight", "have shape (m, *) and a filter", tuple(weight.shape))
    return weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
