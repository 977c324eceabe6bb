"""What the slides say that batch norm brings."""

from _claim import SLIDES, Claim, judged
from _results import Results, read
from batch_norm_gains import (
    BATCH_NORM,
    BY_RATE,
    BY_SCALE,
    DROPPED,
    GRADIENT,
    LAYER,
    NONE,
    NORMPROP,
    RATE,
    RIGHT,
    SPREAD,
    TRAINED,
)  # fmt: skip

NAME = "batch_norm_gains"
COMMAND = f"python examples/{NAME}.py --data fashion-mnist --out examples/results"
TRAINS = 60  # % right that count as trained
ARMS = (NONE, BATCH_NORM)


def claims() -> list[Claim]:
    found = read(NAME)
    return [_flow(found), _shift(found), _rates(found), _initialisation(found), _regularises(found), _dropout(found)]


def _row(words: str, ours: str, *checks: bool, where: str = "Batch Normalization") -> Claim:
    return Claim(SLIDES, where, words, "in words", ours, judged(*checks), COMMAND, f"{NAME}.png")


def _by_scale(found: Results, quantity: str) -> tuple[list[float], dict[str, list[float]], str]:
    """The scales, what was found at each, and that of the smallest and of the largest in words."""
    scales = found.at(NONE, quantity)
    curves = {arm: found.curve(arm, quantity) for arm in ARMS}
    return scales, curves, "; ".join(f"{arm} {values[0]:.1e} to {values[-1]:.1e}" for arm, values in curves.items())


def _flow(found: Results) -> Claim:
    scales, curves, text = _by_scale(found, GRADIENT)
    return _row(
        "improves gradient flow", f"gradient at layer 1 over that at layer 10, weights of {scales[0]:g} to "
        f"{scales[-1]:g} times Glorot's: {text}: one size whatever the weights, though about 1.2 more with each layer",
        max(curves[BATCH_NORM]) / min(curves[BATCH_NORM]) < 2, max(curves[NONE]) / min(curves[NONE]) > 1000,
    )  # fmt: skip


def _shift(found: Results) -> Claim:
    scales, curves, text = _by_scale(found, SPREAD)
    return _row(
        "after a few layers' transformations the distribution may change a lot",
        f"deviation entering layer 10 over that entering layer 2, weights of {scales[0]:g} to {scales[-1]:g} times "
        f"Glorot's: {text}",
        max(curves[NONE]) / min(curves[NONE]) > 10, max(abs(v - 1) for v in curves[BATCH_NORM]) < 0.2, where="Why BN",
    )  # fmt: skip


def _rates(found: Results) -> Claim:
    top = {arm: max((r for r in found.at(arm, BY_RATE) if found.mean(arm, BY_RATE, r) > TRAINS), default=0)
           for arm in (*ARMS, LAYER, NORMPROP)}  # fmt: skip
    return _row(
        "allows higher learning rates",
        f"the highest rate that gets {TRAINS} %: " + ", ".join(f"{arm} {rate:g}" for arm, rate in top.items()),
        top[BATCH_NORM] > top[NONE],
    )  # fmt: skip


def _initialisation(found: Results) -> Claim:
    scales = found.at(NONE, BY_SCALE)
    right = {arm: found.curve(arm, BY_SCALE) for arm in ARMS}
    text = "; ".join(f"{arm} " + ", ".join(f"{v:.0f}" for v in values) for arm, values in right.items())
    return _row(
        "reduces the strong dependence on initialisation",
        f"each at its best rate ({found.mean(BATCH_NORM, RATE):g}, without {found.mean(NONE, RATE):g}), % right by the "
        f"scale of the first weights, {', '.join(f'{s:g}' for s in scales)}: {text}",
        min(right[BATCH_NORM]) > TRAINS, min(right[NONE]) < TRAINS,
    )  # fmt: skip


def _regularises(found: Results) -> Claim:
    right, trained = ({arm: found.mean(arm, q, 0) for arm in ARMS} for q in (RIGHT, TRAINED))
    gaps = {arm: trained[arm] - right[arm] for arm in ARMS}
    return _row(
        "regularises, maybe",
        f"each at its best rate, training less test: {gaps[BATCH_NORM]:.1f} points, without {gaps[NONE]:.1f}; test "
        f"{right[BATCH_NORM]:.1f} and {right[NONE]:.1f} %",
        gaps[BATCH_NORM] < gaps[NONE],
    )  # fmt: skip


def _dropout(found: Results) -> Claim:
    shares = {arm: [found.mean(arm, RIGHT, at) for at in (0, *DROPPED)] for arm in ARMS}
    gains = {arm: max(values) - values[0] for arm, values in shares.items()}
    text = "; ".join(f"{arm} " + ", ".join(f"{v:.1f}" for v in values) for arm, values in shares.items())
    return _row(
        "slightly reduces the need for dropout, maybe",
        f"% right with dropout of 0, {', '.join(f'{share:g}' for share in DROPPED)}: {text}; the best gains "
        f"{gains[BATCH_NORM]:.1f} points with batch norm, {gains[NONE]:.1f} without: there is a need to reduce only "
        "where that is above 0",
        gains[NONE] > 0.5, gains[BATCH_NORM] < gains[NONE],
    )  # fmt: skip
