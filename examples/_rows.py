"""Images read step by step by a recurrent layer, and one training of it."""

from collections.abc import Callable, Generator
from copy import deepcopy

import torch
from _data import Images
from _training import accuracy, step
from torch import Tensor, nn

WIDTH = 64
PIXELS, ROWS = "pixel by pixel", "row by row"
Parts = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]  # sequences and labels, to train and to test with


class Reader(nn.Module):
    """A recurrent layer, and a linear classifier of its last state."""

    def __init__(self, layer: Callable[..., nn.Module], numbers: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.head = layer(numbers, WIDTH, batch_first=True), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def sequences(data: Images, reading: str) -> Parts:
    """(images, steps, numbers), from 0 to about 1; images larger than 8x8 are averaged down to 7x7 pixels."""

    def read(found: Tensor) -> Tensor:
        pixels = found.float().mean(1) / 255
        if reading == PIXELS and pixels.shape[1] > 8:
            pixels = nn.functional.adaptive_avg_pool2d(pixels, 7)
        return pixels.flatten(1)[..., None] if reading == PIXELS else pixels

    return (read(data.images), data.labels), (read(data.test_images), data.test_labels)


def learn(
    layer: Callable[..., nn.Module], parts: Parts, batch: int, rate: float, epochs: int, seed: int
) -> Generator[None, None, tuple[float, float]]:
    """Plain SGD; the % right of the test with running and with batch statistics."""
    (x, y), test = parts
    model = Reader(layer, x.shape[2], seed).to(x.device)
    optimizer, order = torch.optim.SGD(model.parameters(), rate), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(y), generator=order)[: len(y) // batch * batch].split(batch):
            step(model, optimizer, x[rows], y[rows])
            yield
    by_batch = accuracy(deepcopy(model).train(), *test, batch)  # a copy, for batch norm goes on tracking
    return 100 * accuracy(model.eval(), *test, batch), 100 * by_batch
