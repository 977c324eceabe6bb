"""The Network in Network of the NormProp paper: no norm, torch's batch norm, ours with its ReLU, NormProp.

The paper's recipe: SGD with momentum, rate 0.05 in batches of 50 (0.08 of 100) that is halved now and then, weight
decay, every pixel standardised. Its results took --epochs 200 --halve 25 on CIFAR-10. On the digits 0.05 is too much
for NormProp: there the rate is 0.02.
"""

import sys
import time
from statistics import median

import torch
from _common import DATA_OPTIONS, console, images, options
from _data import DIGITS, Images
from _nin import LARGE_BATCH_RATE, NONE, RATE, RATE_WITHOUT_NORM, VARIANTS, network, optimizer, step
from _nin_time import report, step_times
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
    "--width": {"type": float, "default": 1.0, "help": "filters, in parts of the paper's"},
    "--as-printed": {"action": "store_true", "help": "the two paddings as they are printed in the paper"},
    "--time": {"action": "store_true", "help": "do not train: time one step of each variant on one CPU thread"},
}
QUICK = {"epochs": 2, "width": 0.125}
DIGITS_RATE = 0.02


def enlarged(images: Tensor) -> Tensor:
    """3x32x32: digits four times as large, others as they are or padded; what is grey stays so."""
    side = images.shape[-1]
    if side == 8:
        images = nn.functional.interpolate(images.float(), scale_factor=4.0, mode="bilinear").to(torch.uint8)
    elif side < 32:
        images = nn.functional.pad(images, [(32 - side) // 2] * 4)
    return images.expand(-1, 3, -1, -1)


@torch.no_grad()
def accuracy(model: nn.Module, norm: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    batches = zip(images.split(100), labels.split(100), strict=True)
    right = torch.cat([model(norm(x.float())).argmax(1) == y for x, y in batches])
    model.train()
    return right.float().mean().item()


def train(chosen, data: Images) -> None:
    """The variants take turns, batch by batch; a line for each epoch."""
    torch.manual_seed(0)
    images, test = (enlarged(found).to(chosen.device) for found in (data.images, data.test_images))
    labels, test_labels = data.labels.to(chosen.device), data.test_labels.to(chosen.device)
    norm = nk.DataNorm((3, 32, 32), "global").to(chosen.device).fit(images.split(1000))
    rate = DIGITS_RATE if chosen.data == DIGITS else RATE if chosen.batch < 100 else LARGE_BATCH_RATE
    models = {v: network(v, chosen.width, chosen.as_printed, chosen.backend).to(chosen.device) for v in chosen.variants}
    optimizers = {v: optimizer(model, RATE_WITHOUT_NORM if v == NONE else rate) for v, model in models.items()}
    schedules = [StepLR(found, chosen.halve, 0.5) for found in optimizers.values()]
    line(f"{chosen.width:g} of the width, batches of {chosen.batch}, rate {rate:g} (none: {RATE_WITHOUT_NORM:g})")
    line("epoch" + "".join(f"{v:>18}" for v in models))
    for epoch in range(1, chosen.epochs + 1):
        times: dict[str, list[float]] = {v: [] for v in models}
        batches = torch.randperm(len(labels)).to(labels.device).split(chosen.batch)
        for rows in track(batches, f"epoch {epoch}", console=console, transient=True, disable=not console.is_terminal):
            x, y = norm(images[rows].float()), labels[rows]
            for v, model in models.items():
                start = time.perf_counter()
                step(model, optimizers[v], x, y)
                times[v].append(1e3 * (time.perf_counter() - start))
        for schedule in schedules:
            schedule.step()
        right = {v: f"{100 * accuracy(model, norm, test, test_labels):.1f} %" for v, model in models.items()}
        line(f"{epoch:5}" + "".join(f"{right[v]:>8}{median(times[v]):>7.1f} ms" for v in models))


def line(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def main() -> int:
    chosen = options(__doc__, OPTIONS)
    if chosen.quick:
        vars(chosen).update(QUICK)
    if chosen.time:
        torch.set_num_threads(1)
        report(step_times(chosen.width, chosen.as_printed, chosen.backend), chosen.width)
        return 0
    train(chosen, images(chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
