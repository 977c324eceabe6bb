"""What the slides say that batch norm brings."""

from _claim import SLIDES, Claim, judged
from _results import Results, read
from batch_norm_gains import BATCH_NORM, BY_RATE, BY_SCALE, GAP, GRADIENT, NONE

NAME = "batch_norm_gains"
COMMAND = f"python examples/{NAME}.py --data fashion-mnist --out examples/results"
TRAINS = 60  # % right that count as trained


def claims() -> list[Claim]:
    found = read(NAME)
    return [_flow(found), _rates(found), _initialisation(found), _regularises(found)]


def _row(words: str, ours: str, *checks: bool) -> Claim:
    return Claim(SLIDES, "Batch Normalization", words, "in words", ours, judged(*checks), COMMAND, f"{NAME}.png")


def _flow(found: Results) -> Claim:
    scales = found.at(NONE, GRADIENT)
    ends = {arm: [found.mean(arm, GRADIENT, s) for s in scales] for arm in (NONE, BATCH_NORM)}
    text = "; ".join(f"{arm} {values[0]:.1e} to {values[-1]:.1e}" for arm, values in ends.items())
    return _row(
        "improves gradient flow", f"gradient at layer 1 over that at layer 10, weights of {scales[0]:g} to "
        f"{scales[-1]:g} times Glorot's: {text}: one size whatever the weights, though about 1.2 more with each layer",
        max(ends[BATCH_NORM]) / min(ends[BATCH_NORM]) < 2, max(ends[NONE]) / min(ends[NONE]) > 1000,
    )  # fmt: skip


def _rates(found: Results) -> Claim:
    top = {arm: max((r for r in found.at(arm, BY_RATE) if found.mean(arm, BY_RATE, r) > TRAINS), default=0)
           for arm in (NONE, BATCH_NORM)}  # fmt: skip
    return _row(
        "allows higher learning rates",
        f"the highest rate that gets {TRAINS} %: {top[BATCH_NORM]:g}, without {top[NONE]:g}",
        top[BATCH_NORM] > top[NONE],
    )  # fmt: skip


def _initialisation(found: Results) -> Claim:
    scales = found.at(NONE, BY_SCALE)
    right = {arm: [found.mean(arm, BY_SCALE, s) for s in scales] for arm in (NONE, BATCH_NORM)}
    text = "; ".join(f"{arm} " + ", ".join(f"{v:.0f}" for v in values) for arm, values in right.items())
    return _row(
        "reduces the strong dependence on initialisation",
        f"% right by the scale of the first weights, {', '.join(f'{s:g}' for s in scales)}: {text}",
        min(right[BATCH_NORM]) > TRAINS, min(right[NONE]) < TRAINS,
    )  # fmt: skip


def _regularises(found: Results) -> Claim:
    gaps, right = ({a: found.mean(a, q, 0.01) for a in (NONE, BATCH_NORM)} for q in (GAP, BY_RATE))
    return _row(
        "regularises, maybe",
        f"training less test, at 0.01: {gaps[BATCH_NORM]:.1f} points, without {gaps[NONE]:.1f}; test "
        f"{right[BATCH_NORM]:.1f} and {right[NONE]:.1f} %: here it fits better, and the gap is the larger one",
        gaps[BATCH_NORM] < gaps[NONE],
    )  # fmt: skip
