"""Claims of the blog about layer norm in an auto-encoder."""

from math import isfinite

from _claim import BLOG, UNMEASURED, Claim, judged
from _results import Results, read
from blog_autoencoder import (
    BAGS,
    COST,
    LAYER,
    LENGTH,
    PIXELS,
    PLAIN,
    RATES,
    SHARE,
    STREAM,
    STREAM_RATE,
    at_rate,
    exactly,
    ratios,
)  # fmt: skip
from blog_autoencoder import BLOG as FIGURES

NAME = "blog_autoencoder"
COMMAND = "python examples/blog_autoencoder.py --data fashion-mnist --out examples/results"


def claims() -> list[Claim]:
    found = read(NAME)
    bags, images = exactly(found, BAGS), Results(n for n in found.numbers if n.quantity == SHARE)
    return [_costs(bags), _at_best(found), _lengths(bags), _single(found), _neighbours(images), _correlation()]


def _line(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _of_the_blog(quantity: str) -> list[float]:
    return [layer / plain for plain, layer in zip(*FIGURES[quantity].values(), strict=True)]


def _costs(found: Results) -> Claim:
    ours, theirs = ratios(found, COST), _of_the_blog(COST)
    return Claim(
        BLOG, "The comparison", "layer norm halves the cost of two epochs",
        f"2.6762, 1.5721; with LN 1.4755, 0.8076: {_line(theirs)} of it",
        f"bags of words of our own, both at {RATES[0]}, summed cost: {_line(ours[:2])} of the plain one; "
        f"epochs 3 to {len(ours)}: {_line(ours[2:])}",
        judged(*(abs(a - b) < 0.1 for a, b in zip(ours, theirs, strict=False))), COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _at_best(found: Results) -> Claim:
    """A cost that is not finite is no cost."""
    costs = {arm: [exactly(found, at_rate(rate)).mean(arm, COST, 2) for rate in sorted(RATES)]
             for arm in (PLAIN, LAYER)}  # fmt: skip
    text = "; ".join(f"{arm} " + ", ".join(f"{c:.1f}" if isfinite(c) else "not finite" for c in each)
                     for arm, each in costs.items())  # fmt: skip
    layer, plain = (min(filter(isfinite, costs[arm])) for arm in (LAYER, PLAIN))
    return Claim(
        BLOG, "The comparison", "the benefit in the loss is clearly visible", "in words",
        f"cost of epoch 2 at rates of {', '.join(f'{rate:g}' for rate in sorted(RATES))}: {text}; each at its best "
        f"of these {layer / plain:.3f} of the plain one", judged(layer < 0.9 * plain), COMMAND,
    )  # fmt: skip


def _single(found: Results) -> Claim:
    ours = ratios(exactly(found, STREAM), COST)
    return Claim(
        BLOG, "Introduction", "layer norm also works for a batch size of 1", "in words",
        f"bags one by one, both at {STREAM_RATE}: cost {_line(ours)} of the plain one, epochs 1 and 2",
        judged(*(ratio < 0.9 for ratio in ours)), COMMAND,
    )  # fmt: skip


def _correlation() -> Claim:
    return Claim(
        BLOG, "The method", "the correlation of a layer of ReLUs with the one before can be a drawback", "in words",
        "no measure is given, and none is tried", UNMEASURED, COMMAND,
    )  # fmt: skip


def _lengths(found: Results) -> Claim:
    ours, theirs = ratios(found, LENGTH), _of_the_blog(LENGTH)
    return Claim(
        BLOG, "The comparison", "the weights grow otherwise with layer norm",
        f"|W| 20.89, 21.36; with LN 27.84, 31.24: {_line(theirs)} times",
        f"both at {RATES[0]}: {_line(ours[:2])} times; epochs 3 to {len(ours)}: {_line(ours[2:])}",
        judged(all(r > 1 for r in ours[:2]), *(abs(a - b) < 0.15 for a, b in zip(ours, theirs, strict=False))),
        COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _neighbours(found: Results) -> Claim:
    shares = {arm: found.mean(arm, SHARE) for arm in (PLAIN, LAYER, PIXELS)}
    text = ", ".join(f"{arm} {found.show(arm, SHARE)}" for arm in shares)
    return Claim(
        BLOG, "The comparison", "nearest neighbours of some samples look promising", "in words",
        f"{found.data}: % of the 5 nearest codes of a test image that are of its class: {text}; guessing gets 10",
        judged(shares[LAYER] > 50, shares[LAYER] > shares[PLAIN] - 1), COMMAND,
    )  # fmt: skip
