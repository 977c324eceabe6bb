"""Online norm on a stream of single samples: what its guards prevent, and where its gradient points on average.

A net of 30 layers with online norm learns without a guard, with layer scaling, and with a clamp. Then a layer that was
warmed up meets samples of a fixed distribution with a fixed gradient at its output: the gradient at its input, in the
mean over the stream, beside the projection that it estimates, 1/σ (I - P_1) (I - P_y) y', taken over all samples.
"""

import argparse
import sys
from collections.abc import Generator
from functools import partial

import torch
from _common import main, options
from _console import table
from _jobs import Job, run
from _plots import BLUE, GREY, PAPER, RED, legend, panels
from _results import Number, Results
from matplotlib.figure import Figure
from torch import Tensor, nn

import normkernels as nk

NAME = "online_guards"
GUARDS: dict[str, str | None] = {"no guard": None, "layer scaling": "layer_scaling", "clamp": "clamp"}
STEPS, WIDTH, DEPTH = (10, 20, 50, 100, 200, 400, 600), 64, 30
ROOT_MEAN_SQUARE, FINITE = "rms of layer 30", "steps until not finite"
STREAM, CHANNELS, LOOKED_AT = 20000, 16, (500, 1000, 2000, 5000, 10000, 20000)
ONLINE, RAW, EXACT = "online norm's gradient", "gradient that takes statistics for constants", "exact projection"
MEAN, ALONG, CORRELATION = "mean gradient", "mean gradient along the output", "correlation with the exact projection"
OUT_MEAN, OUT_SQUARE = "mean of the output", "mean square of the output"
DIVISOR, DIVISOR_SPREAD = "rms that layer scaling divides by", "its deviation over samples"
OPTIONS = {
    "--seeds": {"type": int, "nargs": "+", "default": [0, 1, 2, 3, 4], "help": "one run for each"},
    "--samples": {"type": int, "default": STEPS[-1], "help": "that the deep net learns from"},
    "--rate": {"type": float, "default": 0.01, "help": "learning rate of the deep net"},
    "--stream": {"type": int, "default": STREAM, "help": "samples of which the gradient is averaged"},
}


def deep(guard: str, samples: int, rate: float, seed: int) -> Generator[None, None, dict[int, float]]:
    """By sample the root mean square of what layer 30 puts out; the target is 1 for normal input."""
    torch.manual_seed(seed)
    norms = [nk.OnlineNorm1d(WIDTH, guard=GUARDS[guard], activation="relu") for _ in range(DEPTH)]
    products = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in norms]
    for product in products:
        nn.init.kaiming_normal_(product.weight)
    pairs = zip(products, norms, strict=True)
    body, head, found = nn.Sequential(*(layer for pair in pairs for layer in pair)), nn.Linear(WIDTH, 1), {}
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], rate)
    for t in range(1, samples + 1):
        y = body(torch.randn(1, WIDTH))
        found[t] = y.square().mean().sqrt().item()
        loss = (head(y) - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield
    return found


def gradients(samples: int, seed: int) -> Generator[None, None, dict[str, Tensor]]:
    """Inputs x with a mean and scale per channel; the gradient at y has a mean and a part along y, and noise."""
    torch.manual_seed(seed)
    x = 1 + 2 * torch.randn(samples, CHANNELS)
    norm = nk.OnlineNorm1d(CHANNELS, guard=None, bias_correction=True)
    norm(1 + 2 * torch.randn(5000, CHANNELS))  # warmed up: statistics are about right when the stream begins
    x.requires_grad_(True)
    y = norm(x)
    dy = 0.5 + 0.3 * y.detach() + torch.randn(samples, CHANNELS)
    (dx,) = torch.autograd.grad(y, x, dy)
    yield
    z = (x.detach() - x.detach().mean(0)) / x.detach().std(0, correction=0)
    exact = (dy - dy.mean(0) - z * (dy * z).mean(0)) / x.detach().std(0, correction=0)
    return {"y": y.detach(), "z": z, ONLINE: dx, RAW: dy / x.detach().std(0, correction=0), EXACT: exact}


def spoilt(found: Results, guard: str) -> str:
    """The sample, for each seed, from which the net's output was no longer finite."""
    return ", ".join(f"{value:.0f}" if value else "never" for value in found.values(guard, FINITE))


def numbers(found: dict) -> list[Number]:
    """Of the net by the sample, of the gradient by the samples so far."""
    lines = []
    for (what, seed), got in found.items():
        if what != MEAN:
            spoilt = next((t for t, rms in got.items() if not torch.tensor(rms).isfinite()), 0)
            kept = [(t, rms) for t, rms in got.items() if t in STEPS and (not spoilt or t < spoilt)]
            data = f"normal samples, {DEPTH} layers of {WIDTH}"
            lines += [Number(data, what, ROOT_MEAN_SQUARE, rms, seed, t) for t, rms in kept]
            lines.append(Number(data, what, FINITE, spoilt, seed))
            continue
        data = f"normal samples, {CHANNELS} channels, a layer"
        lines.append(Number(data, ONLINE, OUT_MEAN, got["y"].mean().item(), seed))
        lines.append(Number(data, ONLINE, OUT_SQUARE, got["y"].square().mean().item(), seed))
        divisor = got["z"].square().mean(1).sqrt()  # with the statistics of the whole stream: no errors
        lines += [Number(data, EXACT, DIVISOR, divisor.mean().item(), seed)]
        lines += [Number(data, EXACT, DIVISOR_SPREAD, divisor.std().item(), seed)]
        exact = got[EXACT].flatten()
        for arm in (ONLINE, RAW, EXACT):
            correlation = torch.corrcoef(torch.stack([got[arm].flatten(), exact]))[0, 1].item()
            lines.append(Number(data, arm, CORRELATION, correlation, seed))
            for t in (t for t in LOOKED_AT if t <= len(got[arm])):
                mean, along = got[arm][:t].mean(0), (got[arm] * got["z"])[:t].mean(0)
                lines.append(Number(data, arm, MEAN, mean.abs().mean().item(), seed, t))
                lines.append(Number(data, arm, ALONG, along.abs().mean().item(), seed, t))
    return lines


def measure(chosen: argparse.Namespace) -> list[Number]:
    jobs: dict[tuple, Job] = {
        (guard, seed): Job(chosen.samples, partial(deep, guard, chosen.samples, chosen.rate, seed))
        for guard in GUARDS
        for seed in chosen.seeds
    }
    jobs |= {(MEAN, seed): Job(1, partial(gradients, chosen.stream, seed)) for seed in chosen.seeds}
    return numbers(run(jobs))


def report(found: Results) -> None:
    rows = [[guard, spoilt(found, guard), found.show(guard, ROOT_MEAN_SQUARE, 3, at=STEPS[0])]
            for guard in found.arms(FINITE)]  # fmt: skip
    table("30 layers on single samples", ["guard", "not finite from sample", f"rms after {STEPS[0]}"], rows)
    rows = [[arm, found.show(arm, MEAN, 7), found.show(arm, ALONG, 7), found.show(arm, CORRELATION, 3)]
            for arm in found.arms(MEAN)]  # fmt: skip
    table("the gradient at a layer's input", ["", "|mean|", "|mean along y|", "correlation with the exact"], rows)


def plots(found: Results) -> dict[str, Figure]:
    figure, (left, right) = panels(2, width=6)
    end = max(found.at("layer scaling", ROOT_MEAN_SQUARE))
    for guard, colour in zip(GUARDS, (GREY, RED, BLUE), strict=True):
        ends = sorted(value or 2 * end for value in found.values(guard, FINITE))
        left_over = range(len(ends), -1, -1)
        left.step([0, *ends], left_over, where="post", color=colour, label=guard)
    left.set(xlabel="samples", xlim=(0, end), title=f"nets of {DEPTH} layers still finite")
    left.yaxis.get_major_locator().set_params(integer=True)
    for arm, colour in ((ONLINE, RED), (RAW, GREY), (EXACT, "black")):
        style = {**PAPER, "label": f"{arm}: 0 in the end"} if arm == EXACT else {"color": colour, "label": arm}
        places = [at for at in found.at(arm, MEAN) if found.mean(arm, MEAN, at) > 1e-6]
        right.plot(places, [found.mean(arm, MEAN, at) for at in places], marker="o", **style)
    right.set(title="|mean gradient| of a layer", xlabel="samples", xscale="log", yscale="log", ylim=(5e-4, 1))
    legend(figure, 2)
    figure.suptitle("Online norm on single samples")
    return {f"{NAME}.png": figure}


if __name__ == "__main__":
    sys.exit(main(NAME, options(__doc__, OPTIONS), measure, report, plots))
