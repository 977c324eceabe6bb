"""Claims about online norm's gradient and its guards."""

from _claim import ONLINE as SEED
from _claim import UNMEASURED, Claim, judged
from _results import Results, read
from online_guards import (
    ALONG,
    CORRELATION,
    DIVISOR,
    DIVISOR_SPREAD,
    EXACT,
    FINITE,
    GUARDS,
    MEAN,
    ONLINE,
    OUT_MEAN,
    OUT_SQUARE,
    RAW,
    ROOT_MEAN_SQUARE,
    spoilt,
)  # fmt: skip

NAME = "online_guards"
COMMAND = f"python examples/{NAME}.py --out examples/results"
NONE, SCALING, CLAMP = GUARDS


def claims() -> list[Claim]:
    found = read(NAME)
    return [_output(found), _unbiased(found), _tangent(found), _guards(found), _without_errors(found), *_not_tried()]


def _output(found: Results) -> Claim:
    mean, square = found.mean(ONLINE, OUT_MEAN), found.mean(ONLINE, OUT_SQUARE)
    return Claim(
        SEED, "2", "output activations have mean 0 and mean square 1", "μ[y] = 0, μ[y²] = 1",
        f"over a stream of 20,000 samples {mean:.3f} and {square:.3f}",
        judged(abs(mean) < 0.05, abs(square - 1) < 0.05), COMMAND,
    )  # fmt: skip


def _unbiased(found: Results) -> Claim:
    mean, along = found.curve(ONLINE, MEAN), found.curve(ONLINE, ALONG)
    return Claim(
        SEED, "2", "backward is an unbiased estimate of the gradient through normalisation", "proved",
        f"mean gradient over a stream, which the exact projection makes 0: {mean[0]:.4f} after 500 samples, "
        f"{mean[-1]:.4f} after 20,000, {found.mean(RAW, MEAN):.2f} if statistics are taken for constants; "
        f"its part along y: {along[-1]:.4f} against {found.mean(RAW, ALONG):.2f}",
        judged(mean[-1] < mean[0] / 10, along[-1] < along[0] / 10, mean[-1] < found.mean(RAW, MEAN) / 100), COMMAND,
        f"{NAME}.png",
    )  # fmt: skip


def _tangent(found: Results) -> Claim:
    ours, raw = found.mean(ONLINE, CORRELATION), found.mean(RAW, CORRELATION)
    return Claim(
        SEED, "2", "it is a projection to the tangent plane, 1/sigma (I - P_1)(I - P_y) y'", "a formula",
        f"correlation of single gradients with the projection over all samples: {ours:.3f}; without projection "
        f"{raw:.3f}; the exact one has mean {found.mean(EXACT, MEAN):.0e}",
        judged(ours > 0.98, ours > raw), COMMAND,
    )  # fmt: skip


def _guards(found: Results) -> Claim:
    def survives(guard: str) -> bool:
        return not any(found.values(guard, FINITE))

    return Claim(
        SEED, "2.1", "errors of estimates compound to numerical instability; layer scaling stops that", "in words",
        f"30 layers on single samples, 5 seeds: not finite from sample {spoilt(found, NONE)} without a guard; "
        f"{spoilt(found, SCALING)} with layer scaling; {spoilt(found, CLAMP)} with a clamp, which the blog does "
        f"not name; after 10 samples the rms of layer 30 is {found.mean(SCALING, ROOT_MEAN_SQUARE, 10):.2f}",
        judged(all(found.values(NONE, FINITE)), survives(SCALING)), COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _without_errors(found: Results) -> Claim:
    divisor, spread = found.mean(EXACT, DIVISOR), found.mean(EXACT, DIVISOR_SPREAD)
    return Claim(
        SEED, "2.1", "with no errors in the estimates layer scaling divides by 1: it does nothing", "1",
        f"16 channels with the exact statistics: rms of a sample {divisor:.2f} in the mean, with a deviation of "
        f"{spread:.2f}: what it divides by is of the one sample, so near 1 with many channels",
        judged(abs(divisor - 1) < 0.05, spread < 0.05), COMMAND,
    )  # fmt: skip


def _not_tried() -> list[Claim]:
    rows = [
        ("1", "why it accelerates: less covariate shift, or a better conditioned problem", "conjectures it cites",
         "no experiment here tells them apart"),
        ("1.1", "estimates from the whole data set have the least variance, and cost too much in a network",
         "in words", "a fact of statistics; the cost is not tried"),
        ("1.1", "batch renorm and streaming norm differentiate through their statistics by heuristics", "in words",
         "how biased their gradients are is not tried"),
    ]  # fmt: skip
    return [Claim(SEED, where, words, there, ours, UNMEASURED, COMMAND) for where, words, there, ours in rows]
