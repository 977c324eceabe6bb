"""Claims about batch norm and layer norm in an RNN."""

from _claim import SLIDES, Claim, judged
from _results import Results, read
from rnn_batch_norm import AFFINE, BATCH, EVAL, FIRST, GAIN, LAYER, PIXELS, PLAIN, REPAIRED, ROWS, STEPS, TRAIN

NAME = "rnn_batch_norm"
COMMAND = "python examples/rnn_batch_norm.py --data fashion-mnist --out examples/results"
GAP = 10  # points between running and batch statistics, that count as one


def claims() -> list[Claim]:
    found = read(NAME)
    pixels, rows = (Results(n for n in found.numbers if n.data.endswith(r)) for r in (PIXELS, ROWS))
    return [_fails(pixels), _per_step(pixels), _small_batches(rows), _not_for_rnns(rows)]


def _gap(found: Results, arm: str) -> float:
    return found.mean(arm, TRAIN) - found.mean(arm, EVAL)


def _both(found: Results, arm: str) -> str:
    return f"{found.show(arm, EVAL)} / {found.show(arm, TRAIN)}"


def _fails(found: Results) -> Claim:
    best = max(found.mean(arm, EVAL) for arm in (GAIN, REPAIRED))
    return Claim(
        SLIDES, "Why BN: BN on RNN", "h = φ(BN(W h + W x)) does not work", "in words",
        f"running / batch statistics: {_both(found, FIRST)} % right; with statistics per step and gain 0.1 the same "
        f"sum gets {_both(found, GAIN)}, both terms apart {_both(found, REPAIRED)}: it is not the sum that fails",
        judged(found.mean(FIRST, EVAL) < best - GAP, found.mean(GAIN, EVAL) < best - GAP), COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _per_step(found: Results) -> Claim:
    return Claim(
        SLIDES, "Why BN: BN on RNN", "horizontal: may need different parameters for different time steps", "a guess",
        f"statistics per step alone: {_both(found, STEPS)} %, so the gap to batch statistics goes from "
        f"{_gap(found, FIRST):.0f} to {_gap(found, STEPS):.0f} points; "
        f"the small gain takes batch statistics to {found.mean(GAIN, TRAIN):.1f} %; gain and bias per step on top "
        f"of the repaired form ({_both(found, REPAIRED)}): {_both(found, AFFINE)} %",
        judged(_gap(found, FIRST) > GAP, _gap(found, STEPS) < _gap(found, FIRST) / 2,
               found.mean(AFFINE, EVAL) > found.mean(REPAIRED, EVAL)), COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _best(found: Results, arm: str, batch: int) -> float:
    """At the better one of the rates."""
    return max(found.mean(a, EVAL, batch) for a in found.arms(EVAL) if a.startswith(arm))


def _small_batches(found: Results) -> Claim:
    shares = {batch: (_best(found, LAYER, batch), _best(found, BATCH, batch)) for batch in (32, 4)}
    text = "; ".join(f"batches of {batch}: {ln:.1f} against {bn:.1f} %" for batch, (ln, bn) in shares.items())
    return Claim(
        SLIDES, "Layer Norm, list", "effective in an RNN with small mini-batches, where BN is not", "in words",
        f"row by row, each at its best rate, LN against BN: {text}",
        judged(shares[4][0] > shares[4][1], shares[4][0] > shares[32][0] - GAP), COMMAND,
    )  # fmt: skip


def _not_for_rnns(found: Results) -> Claim:
    shares = {batch: (_best(found, BATCH, batch), _best(found, PLAIN, batch)) for batch in (32, 4)}
    text = "; ".join(f"batches of {batch}: {bn:.1f}, no norm {none:.1f} %" for batch, (bn, none) in shares.items())
    return Claim(
        SLIDES, "Batch Norm, list", "not good for RNN, LSTM", "in words",
        f"the repaired form, row by row, each at its best rate: {text}; of small batches it is true",
        judged(*(bn < none for bn, none in shares.values())), COMMAND,
    )  # fmt: skip
