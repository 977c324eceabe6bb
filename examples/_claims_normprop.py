"""Claims of the NormProp paper that take training: its figures, table, recipe, and time."""

from statistics import stdev

from _claim import NORMPROP, UNMEASURED, Claim, judged
from _figures import ACCURACY, DRIFT, LAYERS, MEAN, over
from _results import Results, read
from normprop_figures import BASE, BATCH_DATA, BN, PLAIN, worst_drop

NAME, TIME = "normprop_figures", "nin_time"
COMMAND = f"python examples/{NAME}.py --data fashion-mnist --out examples/results"
CLOSE = 2  # points that count as the same
TABLE = {
    "CIFAR-10": "9.11, BN 9.41, the best other of its time 9.59", "CIFAR-10, flips": "7.47, BN 7.25, other 7.51",
    "CIFAR-100": "32.19, BN 35.32, other 34.40", "CIFAR-100, flips": "29.24, BN 30.26, other 30.83",
    "SVHN": "1.88, BN 2.25, other 1.92",
}  # fmt: skip


def claims() -> list[Claim]:
    found = read(NAME)
    return [_data(found), *_shift(found), _convergence(found), _batch_sizes(found), *_errors(found), *_recipe(found),
            *_not_tried(), _time(read(TIME))]  # fmt: skip


def _row(where: str, words: str, paper: str, ours: str, *checks: bool, plot: str = f"{NAME}.png") -> Claim:
    return Claim(NORMPROP, where, words, paper, ours, judged(*checks), COMMAND, plot)


def _data(found: Results) -> Claim:
    pairs = [(BASE, BATCH_DATA), ("NormProp, 100", "NormProp, batch data norm, 100")]
    text = "; ".join(f"{found.show(a, ACCURACY)} and {found.show(b, ACCURACY)}" for a, b in pairs)
    return _row(
        "5.1, figure 1", "normalising the data as a whole or batch by batch is the same",
        "90.35 % the best, all close, in 30 epochs",
        f"% right, batches of 50 and 100: {text}",
        *(abs(found.mean(a, ACCURACY) - found.mean(b, ACCURACY)) < CLOSE for a, b in pairs),
    )  # fmt: skip


def _shift(found: Results) -> list[Claim]:
    low, high = ({n: over(found, n, DRIFT, part, False) for n in (BASE, BN)} for part in (range(2, 5), range(5, 10)))
    last = {n: over(found, n, DRIFT) for n in (BASE, BN)}
    means = {n: over(found, n, MEAN) for n in (BASE, BN)}
    ends = [found.mean(BASE, MEAN.format(layer)) for layer in LAYERS]
    still = over(found, PLAIN, DRIFT, LAYERS, False)
    where, plot = "5.2, figure 2", "normprop_shift.png"
    return [
        _row(where, "the inputs of lower layers are more stable than with BN", "drawn",
             f"change of a unit's mean per epoch, layers 2 to 4: {low[BASE]:.3f}, BN {low[BN]:.3f}; "
             f"5 to 9: {high[BASE]:.3f}, BN {high[BN]:.3f}", low[BASE] < low[BN], plot=plot),
        _row(where, "they converge, sooner than with BN", "32 epochs, BN not by 50",
             f"change in the last epoch, all layers: {last[BASE]:.3f}, BN {last[BN]:.3f}",
             last[BASE] < last[BN], plot=plot),
        _row(where, "they converge closer to 0", "0.19, BN 0.33", f"distance from 0 at the end, all layers: "
             f"{means[BASE]:.2f}, BN {means[BN]:.2f}", means[BASE] < means[BN], plot=plot),
        _row("5.2", "the means of what enters hidden layers are roughly preserved, so the bound is small", "drawn",
             "distance of a unit's mean from the 0 that it starts near (in deviations, as layers of NormProp see it), "
             f"layers 2 to 9 at the end: {', '.join(f'{mean:.2f}' for mean in ends)}", max(ends) < 0.5, plot=plot),
        _row(where, "without a norm (rate 0.0001) the inputs of layers vary extremely", "in words",
             f"{found.show(PLAIN, ACCURACY)} % right, change per epoch {still:.4f}: at that rate it does not learn",
             still > low[BN], plot=plot),
    ]  # fmt: skip


def _convergence(found: Results) -> Claim:
    drops, first = ({n: f(n) for n in (BASE, BN)} for f in (
        lambda n: worst_drop(found, n), lambda n: found.mean(n, ACCURACY, 1)))  # fmt: skip
    return _row(
        "5.3, figure 3", "convergence is more stable than with BN, most of all at first", "drawn",
        f"the most that a seed lost in an epoch: {drops[BASE]:.1f} points, BN {drops[BN]:.1f}; after epoch 1 "
        f"{first[BASE]:.1f} % right, BN {first[BN]:.1f}", drops[BASE] < drops[BN], first[BASE] > first[BN],
    )  # fmt: skip


def _batch_sizes(found: Results) -> Claim:
    names = ("NormProp, 1", "NormProp, 10", BASE, "NormProp, 100")
    means = [found.mean(name, ACCURACY) for name in names]
    lost = sum(value < 20 for value in found.values(names[-1], ACCURACY))
    return _row(
        "5.4, figure 4", "largely unaffected by batch size; smaller seem better", "drawn",
        "% right at equal epochs, batches of 1, 10, 50, 100: " + ", ".join(found.show(n, ACCURACY) for n in names)
        + f" (at 0.08 {lost} of 3 seeds lost; 100 at 0.05: {found.show('batch 100 at the rate of 50', ACCURACY)})",
        max(means) - min(means) < 2 * CLOSE, means[0] > means[-1],
    )  # fmt: skip


def _errors(found: Results) -> list[Claim]:
    ours, other = (100 - found.mean(name, ACCURACY) for name in (BASE, BN))
    small = _row("5.5, table 1", "test error better than or about that of BN, %, both at 0.05", "the rows below",
                 f"not the paper's data, {found.data}: {ours:.1f}, BN {other:.1f}", ours < other + 1)  # fmt: skip
    paper = {"cifar": "--epochs 200 --halve 25 --normalize batch",
             "svhn": "--epochs 25 --halve 5 --batch 100 --normalize batch"}  # fmt: skip
    rows = []
    for name, error in TABLE.items():
        data, *flips = name.lower().replace("cifar-", "cifar").split(", ")
        line = f"python examples/nin.py --data {data} {paper[data.rstrip('01')]}{' --flip' * bool(flips)}"
        words = f"test error on {name}, %, lower than the best of its time"
        rows.append(Claim(NORMPROP, "5.5, table 1", words, error, "takes days on one core", UNMEASURED, line))
    return [small, *rows]


def _recipe(found: Results) -> list[Claim]:
    base = found.mean(BASE, ACCURACY)

    def change(where: str, words: str, name: str, paper: str = "in words", recipe: str = BASE) -> Claim:
        """The recipe is said to do better than the change of it: by more than half the deviation over seeds here."""
        margin = max(stdev(found.values(n, ACCURACY)) for n in (recipe, name)) / 2
        text = f"{found.show(recipe, ACCURACY)} % right, {name} {found.show(name, ACCURACY)}"
        return _row(where, words, paper, text, found.mean(name, ACCURACY) < found.mean(recipe, ACCURACY) - margin)

    twice, unit = found.mean("twice the rate", ACCURACY), found.mean("gain 1, twice the rate", ACCURACY)
    return [
        _row("4.3.1", "the gain 1/1.21 lets larger rates train", "in words",
             f"at twice the rate {found.show('twice the rate', ACCURACY)} % right, gain 1 "
             f"{found.show('gain 1, twice the rate', ACCURACY)}", twice > unit),
        _row("4.6, note 2", "it works without that gain as well", "in words",
             f"{found.show(BASE, ACCURACY)} % right, gain 1 {found.show('gain 1', ACCURACY)}",
             found.mean("gain 1", ACCURACY) > base - 10),
        change("4.4, learning rate", "halving the rate speeds learning up", "never halved"),
        change("4.4, learning rate", "larger batches want larger rates", "batch 100 at the rate of 50",
               recipe="NormProp, 100"),
        change("4.4, optimisation", "shuffling helps (not shuffled: the file's order, itself random, in each epoch)",
               "not shuffled"),
        change("4.4, regularisations", "a little weight decay is necessary", "no weight decay", "0.0005 to 0.005"),
        change("4.4, regularisations", "dropout does not help", "dropout"),
        change("5.3, note 6", "SGD without momentum (here ten times the rate) is worse", "no momentum"),
    ]  # fmt: skip


def _not_tried() -> list[Claim]:
    """What no example here can tell, or what the paper takes from others."""
    rows = {
        ("2", "whitening the input of every layer speeds training up, at cubic cost"): "taken from others, not tried",
        ("2", "whitening that the gradient does not see cancels its steps"): "taken from others, not tried",
        ("5.2", "inputs that shift in lower layers harm more than in higher ones"): "an expectation, not tried",
        ("5.3, note 6", "the trends are the same on SVHN and CIFAR-100"): "takes days on one core",
        ("5.3, note 6", "with batches of 1, SGD is as good without momentum"): "not tried",
    }
    return [Claim(NORMPROP, *at, "in words", ours, UNMEASURED, COMMAND) for at, ours in rows.items()]


def _time(found: Results) -> Claim:
    step, rest = (
        found.mean("normprop", q) / found.mean("batch_norm", q) for q in ("ms a step", "ms without convolutions")
    )
    return Claim(
        NORMPROP, "5.6", "an epoch takes less time than with BN", "84 s, BN 96 s: 0.875",
        f"a step of the full net, {found.data}, in torch's batch norm: {step:.3f} (all but convolutions: {rest:.2f})",
        judged(step < 1), "python examples/nin.py --time --out examples/results",
    )  # fmt: skip
