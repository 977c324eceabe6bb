"""Claims of the NormProp paper about covariances, Jacobians and pooling."""

from _claim import NORMPROP, Claim, judged
from _results import Results, read
from canonical import (
    AVERAGE,
    BEFORE,
    BOUND,
    COHERENCE,
    DEVIATION,
    HIGHEST,
    KURTOSIS,
    LOWEST,
    MAX,
    MEAN,
    MEASURED,
    NAMES,
    NARROWING,
    PIXELS,
    RMS,
    SKEWNESS,
    SQUARE,
    WHITE,
)  # fmt: skip

NAME = "canonical"
COMMAND = "python examples/canonical.py --data fashion-mnist --out examples/results"
NEAR = 0.1  # of a mean, and of a deviation, that count as unchanged


def claims() -> list[Claim]:
    found = read(NAME)
    normal = found.on("normal input")
    images = Results(n for n in found.numbers if n not in normal.numbers)
    return [_bound(images), _tight(images), *_gaussian(images), _jacobian(normal), _pooling(images)]


def _bound(found: Results) -> Claim:
    shares = {
        q: [e / b for n in NAMES for e, b in zip(found.curve(n, q), found.curve(n, BOUND), strict=True)]
        for q in (WHITE, MEASURED)
    }
    below = {q: sum(share <= 1 for share in each) for q, each in shares.items()}
    (count,) = {len(each) for each in shares.values()}
    return Claim(
        NORMPROP, "3.2, proposition 1", "the covariance is as near to a diagonal as the bound by coherence says",
        "proved for white input",
        f"{len(NAMES)} layers, before training and after each epoch: below the bound {below[WHITE]} of {count} times "
        f"with white input, {below[MEASURED]} of {count} with what enters the layers; error / bound there "
        f"{min(shares[MEASURED]):.2f} to {max(shares[MEASURED]):.2f}: it is far from white once filters are learnt",
        judged(below[WHITE] == count, below[MEASURED] == count), COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _tight(found: Results) -> Claim:
    first, last = NAMES[0], NAMES[-1]
    ends = {n: (found.mean(n, COHERENCE, 0), found.mean(n, COHERENCE)) for n in (first, last)}
    text = ", ".join(f"{n} {a:.2f} to {b:.2f}" for n, (a, b) in ends.items())
    share = found.mean(first, MEASURED) / found.mean(first, BOUND)
    return Claim(
        NORMPROP, "3.2, proposition 1", "useful filters are roughly incoherent, so that the bound is small", "in words",
        f"coherence from the start to the end of training: {text}; the bound is then "
        f"{found.show(first, BOUND)} and {found.show(last, BOUND)}, while the diagonal has length 8; measured "
        f"in layer 1 {share:.2f} times its bound",
        judged(all(b < 0.5 for _, b in ends.values()), all(found.mean(n, BOUND) < 8 for n in ends)),
        COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _gaussian(found: Results) -> list[Claim]:
    """0.5 of skewness and 1 of excess kurtosis count as about Gaussian."""
    ends = [[(found.mean(n, SKEWNESS, at), found.mean(n, KURTOSIS, at)) for n in NAMES]
            for at in (0, max(found.at(NAMES[0], KURTOSIS)))]  # fmt: skip
    spans = [" and ".join(f"{min(v):.2f} to {max(v):.2f}" for v in zip(*layers, strict=True)) for layers in ends]
    pixels = found.mean(PIXELS, SKEWNESS), found.mean(PIXELS, KURTOSIS)
    return [
        Claim(NORMPROP, "Abstract, 3.1", "the pre-activations before ReLU are Gaussian", "in words",
              f"|skewness| and |excess kurtosis| of a unit, median, over {len(NAMES)} layers: {spans[0]} as "
              f"initialised, {spans[1]} after training; both are 0 of a Gaussian",
              judged(*(skew < 0.5 and tails < 1 for layers in ends for skew, tails in layers)), COMMAND),
        Claim(NORMPROP, "3.1", "real-world data are about Gaussian", "in words",
              f"|skewness| and |excess kurtosis| of a pixel, median: {pixels[0]:.2f} and {pixels[1]:.2f}",
              judged(pixels[0] < 0.5, pixels[1] < 1), COMMAND),
    ]  # fmt: skip


def _jacobian(found: Results) -> Claim:
    text = "; ".join(
        f"{n.removeprefix('Jacobian, ')} units {found.mean(n, LOWEST):.2f} to {found.mean(n, HIGHEST):.2f}, root mean "
        f"square {found.mean(n, RMS):.3f}"
        for n in (NARROWING, SQUARE)
    )
    apart = [max(abs(found.mean(n, q) - 1.21) for q in (LOWEST, HIGHEST)) for n in (NARROWING, SQUARE)]
    return Claim(
        NORMPROP, "3.4, equation 7", "the singular values of a layer's Jacobian are 1.21", "1.21",
        f"{text}: the root mean square is that, the values spread where filters are not incoherent",
        judged(all(abs(found.mean(n, RMS) - 1.21) < 0.01 for n in (NARROWING, SQUARE)), max(apart) < 0.25), COMMAND,
    )  # fmt: skip


def _pooling(found: Results) -> Claim:
    def moments(arm: str) -> tuple[float, float]:
        return found.mean(arm, AVERAGE), found.mean(arm, DEVIATION)

    before = moments(BEFORE)
    kept = [max(abs(a - b) for a, b in zip(moments(arm), before, strict=True)) < NEAR for arm in (MAX, MEAN)]
    text = ", ".join(f"after {arm} {mean:.2f} and {dev:.2f}" for arm in (MAX, MEAN) for mean, dev in [moments(arm)])
    return Claim(
        NORMPROP, "3.2, pooling", "pooling does not affect mean and deviation significantly", "in words",
        f"3x3, stride 2, behind a 5x5 convolution as initialised: {before[0]:.2f} and {before[1]:.2f} before, {text}",
        judged(*kept), COMMAND,
    )  # fmt: skip
