"""The Network in Network of the NormProp paper: no norm, torch's batch norm, ours with its ReLU, NormProp.

The paper's recipe: SGD with momentum, rate 0.05 in batches of 50 (0.08 of 100, here in proportion below 50) that is
halved now and then, weight decay, data normalised batch by batch. Its results took --epochs 200 --halve 25 on CIFAR.
On the digits 0.05 is too much for NormProp: there the rate is 0.02.
"""

import sys
import time
from collections.abc import Iterator
from statistics import median

import torch
from _common import DATA_OPTIONS, console, images, options
from _data import DIGITS, Images
from _nin import DECAY, NONE, RATE, RATE_WITHOUT_NORM, VARIANTS, network, optimizer, scaled, step
from _nin_time import REPEATS, report, step_times
from rich.progress import track
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

import normkernels as nk

OPTIONS = {
    **DATA_OPTIONS,
    "--variants": {"nargs": "+", "choices": VARIANTS, "default": VARIANTS, "help": "what to train"},
    "--epochs": {"type": int, "default": 30, "help": "times through the training images"},
    "--halve": {"type": int, "default": 10, "help": "epochs until the rate is halved"},
    "--batch": {"type": int, "default": 50, "help": "images for each step"},
    "--rate": {"type": float, "help": "learning rate of batches of 50; the paper's if not given"},
    "--decay": {"type": float, "default": DECAY, "help": "weight decay"},
    "--normalize": {"choices": ("global", "batch"), "default": "global", "help": "the data: as a whole, or by batches"},
    "--flip": {"action": "store_true", "help": "half of the images of a batch are mirrored"},
    "--validation": {"type": int, "default": 0, "help": "test with the last training images, as many as this"},
    "--seed": {"type": int, "default": 0, "help": "of the weights and the order of images"},
    "--width": {"type": float, "default": 1.0, "help": "filters, in parts of the paper's"},
    "--as-printed": {"action": "store_true", "help": "the two paddings as they are printed in the paper"},
    "--time": {"action": "store_true", "help": "do not train: time one step of each variant on one CPU thread"},
}
QUICK = {"epochs": 2, "width": 0.125, "images": None, "tested": None}
DIGITS_RATE = 0.02


def enlarged(images: Tensor) -> Tensor:
    """3x32x32: digits four times as large, others as they are or padded; what is grey stays so."""
    side = images.shape[-1]
    if side == 8:
        images = nn.functional.interpolate(images.float(), scale_factor=4.0, mode="bilinear").to(torch.uint8)
    elif side < 32:
        images = nn.functional.pad(images, [(32 - side) // 2] * 4)
    return images.expand(-1, 3, -1, -1)


def split(data: Images, validation: int, device: str) -> list[Tensor]:
    """Images and labels to train with, and to test with: of the test, or of the end of the training images."""
    x, y, test, test_labels = enlarged(data.images), data.labels, enlarged(data.test_images), data.test_labels
    if validation:
        x, test, y, test_labels = x[:-validation], x[-validation:], y[:-validation], y[-validation:]
    return [t.to(device) for t in (x, y, test, test_labels)]


@torch.no_grad()
def accuracy(model: nn.Module, norm: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval(), norm.eval()
    batches = zip(images.split(100), labels.split(100), strict=True)
    right = torch.cat([model(norm(x.float())).argmax(1) == y for x, y in batches])
    model.train(), norm.train()
    return right.float().mean().item()


def batches(chosen, count: int, epoch: int) -> Iterator[Tensor]:
    """Rows of full batches; a last one of a single image would have no statistics."""
    rows = torch.randperm(count)[: count // chosen.batch * chosen.batch].to(chosen.device).split(chosen.batch)
    return iter(track(rows, f"epoch {epoch}", console=console, transient=True, disable=not console.is_terminal))


def train(chosen, data: Images) -> None:
    """The variants take turns, batch by batch; a line for each epoch."""
    torch.manual_seed(chosen.seed)
    x, y, *test = split(data, chosen.validation, chosen.device)
    norm = nk.DataNorm((3, 32, 32), chosen.normalize).to(chosen.device)
    norm = norm.fit(x.split(1000)) if chosen.normalize == "global" else norm
    rate = scaled(chosen.rate or (DIGITS_RATE if chosen.data == DIGITS else RATE), chosen.batch)
    arguments = chosen.width, chosen.as_printed, chosen.backend, 3, int(y.max()) + 1
    models = {v: network(v, *arguments).to(chosen.device) for v in chosen.variants}
    rates = {v: RATE_WITHOUT_NORM if v == NONE else rate for v in models}
    optimizers = {v: optimizer(model, rates[v], chosen.decay) for v, model in models.items()}
    schedules = [StepLR(found, chosen.halve, 0.5) for found in optimizers.values()]
    line(f"{data.name}; {chosen.width:g} of the width, batches of {chosen.batch}, rate {rate:g} "
         f"(none: {RATE_WITHOUT_NORM:g})")  # fmt: skip
    line("epoch" + "".join(f"{v:>18}" for v in models))
    for epoch in range(1, chosen.epochs + 1):
        times: dict[str, list[float]] = {v: [] for v in models}
        for rows in batches(chosen, len(y), epoch):
            image = x[rows].float()
            if chosen.flip:
                image = torch.where(torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5, image.flip(-1), image)
            image = norm(image)
            for v, model in models.items():
                start = time.perf_counter()
                step(model, optimizers[v], image, y[rows])
                times[v].append(1e3 * (time.perf_counter() - start))
        for schedule in schedules:
            schedule.step()
        right = {v: f"{100 * accuracy(model, norm, *test):.1f} %" for v, model in models.items()}
        line(f"{epoch:5}" + "".join(f"{right[v]:>8}{median(times[v]):>7.1f} ms" for v in models))


def line(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def main() -> int:
    chosen = options(__doc__, OPTIONS)
    if chosen.quick:
        vars(chosen).update(QUICK)
    if chosen.time:
        torch.set_num_threads(1)
        repeats = 3 if chosen.quick else REPEATS
        report(step_times(chosen.width, chosen.as_printed, chosen.backend, repeats), chosen.width, chosen.out)
        return 0
    train(chosen, images(chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
