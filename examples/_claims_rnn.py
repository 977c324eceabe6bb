"""Claims about batch norm and layer norm in an RNN."""

from _claim import SLIDES, Claim, judged
from _results import Results, read
from _rows import PIXELS, ROWS
from rnn_batch_norm import (
    AFFINE,
    BATCH,
    EVAL,
    FIRST,
    GAIN,
    KINDS,
    LAYER,
    PLAIN,
    RATES,
    REPAIRED,
    SIZES,
    STEPS,
    TRAIN,
    named,
    readings,
)  # fmt: skip

NAME = "rnn_batch_norm"
COMMAND = "python examples/rnn_batch_norm.py --data fashion-mnist --out examples/results"
GAP = 10  # points between running and batch statistics, that count as one


def claims() -> list[Claim]:
    found = readings(read(NAME))
    pixels, rows = found[PIXELS], found[ROWS]
    return [_fails(pixels), _per_step(pixels), _small_batches(rows), _not_for_rnns(rows)]


def _gap(found: Results, arm: str) -> float:
    return found.mean(arm, TRAIN) - found.mean(arm, EVAL)


def _both(found: Results, arm: str) -> str:
    return f"{found.show(arm, EVAL)} / {found.show(arm, TRAIN)}"


def _fails(found: Results) -> Claim:
    best = max(found.mean(arm, EVAL) for arm in (GAIN, REPAIRED))
    return Claim(
        SLIDES, "Why BN: BN on RNN", "h = φ(BN(W h + W x)) does not work", "in words",
        f"all at one rate, running / batch statistics: {_both(found, FIRST)} % right; with statistics per step and "
        f"gain 0.1 the same sum gets {_both(found, GAIN)}, both terms apart {_both(found, REPAIRED)}: it is not the "
        "sum that fails",
        judged(found.mean(FIRST, EVAL) < best - GAP, found.mean(GAIN, EVAL) < best - GAP), COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _per_step(found: Results) -> Claim:
    return Claim(
        SLIDES, "Why BN: BN on RNN", "horizontal: may need different parameters for different time steps", "a guess",
        f"all at one rate, statistics per step alone: {_both(found, STEPS)} %, so the gap to batch statistics goes "
        f"from {_gap(found, FIRST):.0f} to {_gap(found, STEPS):.0f} points; "
        f"the small gain takes batch statistics to {found.mean(GAIN, TRAIN):.1f} %; gain and bias per step on top "
        f"of the repaired form ({_both(found, REPAIRED)}): {_both(found, AFFINE)} %",
        judged(_gap(found, FIRST) > GAP, _gap(found, STEPS) < _gap(found, FIRST) / 2,
               found.mean(AFFINE, EVAL) > found.mean(REPAIRED, EVAL)), COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _best(found: Results, norm: str, batch: int) -> float:
    """At the better one of the rates, by the test itself."""
    return max(found.mean(named(norm, KINDS[0], rate), EVAL, batch) for rate in RATES[KINDS[0]])


def _shares(found: Results, norms: tuple[str, str]) -> tuple[dict[int, list[float]], str]:
    """% right with both norms, by batch size, and in words."""
    shares = {batch: [_best(found, norm, batch) for norm in norms] for batch in SIZES}
    text = "; ".join(f"batches of {b}: {first:.1f} against {second:.1f} %" for b, (first, second) in shares.items())
    return shares, f"RNN, row by row, each at the better of two rates by the test itself, {text}"


def _small_batches(found: Results) -> Claim:
    shares, text = _shares(found, (LAYER, BATCH))
    return Claim(
        SLIDES, "Layer Norm, list", "effective in an RNN with small mini-batches", "in words",
        f"LN against BN: {text}", judged(shares[4][0] > shares[4][1], shares[4][0] > shares[32][0] - GAP), COMMAND,
        f"{NAME}.png",
    )  # fmt: skip


def _not_for_rnns(found: Results) -> Claim:
    shares, text = _shares(found, (BATCH, PLAIN))
    return Claim(
        SLIDES, "Batch Norm, list", "not good for RNN, LSTM", "in words",
        f"the repaired form against no norm: {text}; an LSTM is not measured",
        judged(*(bn < none for bn, none in shares.values())), COMMAND, f"{NAME}.png",
    )  # fmt: skip
