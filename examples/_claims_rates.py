"""Claims of the NormProp paper that compare arms, each at the best of a few rates."""

from statistics import fmean, stdev

from _claim import NORMPROP, Claim, judged
from _figures import ACCURACY, BY_BATCH, DRIFT, LAYERS, TRAINED, over
from _jobs import VALIDATION
from _nin import RATE_WITHOUT_NORM
from _results import Results, read
from normprop_figures import worst_drop
from normprop_rates import BN, BY_BATCHES, FREE, PLAIN, RATE_USED, RATES, RMS, SLOW, UNSHUFFLED
from normprop_rates import NORMPROP as OURS

NAME = "normprop_rates"
COMMAND = f"python examples/{NAME}.py --data fashion-mnist --out examples/results"
CLOSE, LEARNT = 2, 50  # points that count as the same, and the share that counts as learnt
CLEARLY = 1.1  # how many times as large counts as larger


def claims() -> list[Claim]:
    numbers = read(NAME).numbers
    held = Results(n for n in numbers if n.quantity == VALIDATION)
    found = Results(n for n in numbers if n.quantity != VALIDATION)
    return [_error(found), _stable(found), *_inputs(found), _jump(found), _running(found), _diverges(held),
            *_optimizers(found), _unit(found), _regularises(found)]  # fmt: skip


def _row(where: str, words: str, ours: str, *checks: bool) -> Claim:
    return Claim(NORMPROP, where, words, "in words", ours, judged(*checks), COMMAND, f"{NAME}.png")


def _shown(found: Results, name: str) -> str:
    """% right and the rate; says where that is the lowest or the highest one tried."""
    rate, tried = found.mean(name, RATE_USED), RATES[name]
    ends = {min(tried): ", the lowest tried", max(tried): ", the highest tried"}
    return f"{name} {found.show(name, ACCURACY)} (rate {rate:g}{ends.get(rate, '')})"


def _each(found: Results, *names: str) -> str:
    return "% right, each at its best rate: " + ", ".join(_shown(found, name) for name in names)


def _right(found: Results, name: str) -> float:
    return found.mean(name, ACCURACY)


def _worse(found: Results, name: str, than: str) -> bool:
    """By more than half the deviation over seeds."""
    spread = max(stdev(found.values(n, ACCURACY)) for n in (name, than))
    return _right(found, name) < _right(found, than) - spread / 2


def _error(found: Results) -> Claim:
    text = f"not the paper's data, {found.data}: {_each(found, OURS, BN)}"
    return _row("5.5, table 1", "test error better than or about that of BN, each at its best rate", text,
                _right(found, OURS) > _right(found, BN) - 1)  # fmt: skip


def _stable(found: Results) -> Claim:
    drops, first = {n: worst_drop(found, n) for n in (OURS, BN)}, {n: found.mean(n, ACCURACY, 1) for n in (OURS, BN)}
    return _row(
        "5.3, figure 3", "convergence is more stable than with BN, each at its best rate",
        f"the most that a seed lost in an epoch: {drops[OURS]:.1f} points, BN {drops[BN]:.1f}; after epoch 1 "
        f"{first[OURS]:.1f} % right, BN {first[BN]:.1f}", drops[OURS] < drops[BN], first[OURS] > first[BN],
    )  # fmt: skip


def _inputs(found: Results) -> list[Claim]:
    """What layers get, while training."""
    low = {n: over(found, n, DRIFT, range(2, 5), False) for n in (OURS, BN, PLAIN)}
    every = {n: over(found, n, DRIFT, LAYERS, False) for n in low}
    first = {n: found.mean(n, ACCURACY, 1) for n in low}
    lower, all_of_them = (", ".join(f"{n} {value:.3f}" for n, value in part.items()) for part in (low, every))
    text = "change of a unit's mean per epoch, {}, each at its best rate: {}"
    slow, middle, fast = sorted(every, key=lambda n: first[n])
    return [
        _row("5.2, figure 2", "the inputs of lower layers are more stable than with BN, each at its best rate",
             text.format("layers 2 to 4", lower), low[OURS] < low[BN]),
        _row("1", "without a norm the inputs of hidden layers shift more while training",
             text.format("all layers", all_of_them), *(every[PLAIN] > CLEARLY * every[n] for n in (BN, OURS))),
        _row("1", "shifting inputs slow convergence down",
             f"{text.format('all layers', all_of_them)}; % right after epoch 1: "
             + ", ".join(f"{n} {first[n]:.1f}" for n in low) + ": three arms, which is no proof of a cause",
             every[fast] == min(every.values()), every[slow] > CLEARLY * every[middle] > CLEARLY**2 * every[fast]),
    ]  # fmt: skip


def _jump(found: Results) -> Claim:
    return _row("1", "BN is a significant jump in performance", _each(found, BN, PLAIN),
                _right(found, BN) > _right(found, PLAIN) + CLOSE)  # fmt: skip


def _running(found: Results) -> Claim:
    gaps = [found.mean(BN, BY_BATCH, at) - found.mean(BN, ACCURACY, at) for at in found.at(BN, ACCURACY)]
    return _row(
        "Abstract, 1", "BN's running statistics are inaccurate for validation, most of all at first",
        f"% right with the statistics of batches of 50 less those with running ones: {gaps[0]:.1f} points after epoch "
        f"1, {gaps[-1]:.1f} at the end", gaps[0] > 1, gaps[0] > gaps[-1],
    )  # fmt: skip


def _diverges(held: Results) -> Claim:
    shares = {rate: held.mean(PLAIN, VALIDATION, rate) for rate in held.at(PLAIN, VALIDATION)}
    text = ", ".join(f"{rate:g} {right:.1f}" for rate, right in shares.items())
    return _row("5.2", "without a norm larger rates than 0.0001 diverge", f"% right of the validation, by rate: {text}",
                max(right for rate, right in shares.items() if rate > RATE_WITHOUT_NORM) < 20)  # fmt: skip


def _optimizers(found: Results) -> list[Claim]:
    return [
        _row("4", "NormProp works with any optimiser: SGD with momentum or without", _each(found, OURS, SLOW, RMS),
             *(_right(found, n) > LEARNT for n in (OURS, SLOW, RMS))),
        _row("5.3, note 6", "RMSprop is mostly worse than SGD with momentum", _each(found, OURS, RMS),
             _worse(found, RMS, OURS)),
        _row("5.3, note 6", "SGD without momentum is worse than both", _each(found, SLOW, OURS, RMS),
             _worse(found, SLOW, OURS), _worse(found, SLOW, RMS)),
    ]  # fmt: skip


def _unit(found: Results) -> Claim:
    return _row("4.4, constraints", "filters of length 1 after every step should make the search easier",
                _each(found, OURS, FREE), _right(found, OURS) > _right(found, FREE) + CLOSE)  # fmt: skip


def _regularises(found: Results) -> Claim:
    seeds = {n: [a - b for a, b in zip(*(found.values(n, q) for q in (TRAINED, ACCURACY)), strict=True)]
             for n in (OURS, BY_BATCHES, UNSHUFFLED)}  # fmt: skip
    gaps = {n: fmean(each) for n, each in seeds.items()}
    most = gaps[BY_BATCHES] + max(map(stdev, seeds.values())) / 2
    return _row(
        "4.1", "data normalised batch by batch regularise, most of all when well shuffled",
        "% right in training less test, each at its best rate: "
        + ", ".join(f"{n} {gaps[n]:.1f} ± {stdev(each):.1f}" for n, each in seeds.items())
        + f"; test: {', '.join(found.show(n, ACCURACY) for n in gaps)}",
        gaps[OURS] > most, gaps[UNSHUFFLED] > most,
    )  # fmt: skip
