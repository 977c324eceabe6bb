"""Statistics of a model whose weights are an average of others, or came from elsewhere."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_bn(
    loader: Iterable[Tensor | Sequence[object]], model: nn.Module, device: torch.device | str | int | None = None
) -> None:
    """torch.optim.swa_utils.update_bn for every norm with a state: one pass over data, in training mode.

    Layers with a ``momentum`` (batch norm, batch renorm, tracked instance norm, recurrent batch norms, data norm) have
    the mean of the batches' statistics then. Batch renorm stays at the training call, and so at the bounds, where it
    was. Online and streaming norms, whose state forgets at a pace of its own, go on from where they are: give them as
    many batches as that takes, or call ``reset_running_stats()`` first. What is frozen stays.

    Args:
        loader: batches, each a tensor or a sequence whose first element is one.
        model: any module, a norm itself too; it is in the mode afterwards that it was in.
        device: where batches are moved to; None leaves them.

    Example:
        >>> model = torch.nn.Sequential(nk.BatchRenorm1d(8), torch.nn.BatchNorm1d(8))
        >>> averaged = torch.optim.swa_utils.AveragedModel(model)
        >>> update_bn([torch.randn(4, 8) for _ in range(3)], averaged)
    """
    norms: list[Any] = [m for m in model.modules() if hasattr(m, "momentum") and list(m.buffers(False))]
    batch_norms = [m for m in norms if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta, training = [m.momentum for m in norms], model.training
    counts: list[tuple[Tensor, Tensor]] = [
        (m.num_batches_tracked, m.num_batches_tracked.clone())
        for m in norms
        if m not in batch_norms and getattr(m, "num_batches_tracked", None) is not None
    ]
    for m in batch_norms:
        m.reset_running_stats()
    model.train()
    try:
        for k, batch in enumerate(loader):
            for m in norms:
                m.momentum = None if m in batch_norms else 1 / (k + 1)  # None: one over the calls it has had
            x: Any = batch[0] if isinstance(batch, list | tuple) else batch
            model(x if device is None else x.to(device))
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        for count, before in counts:
            count.copy_(before)
        model.train(training)
