"""Claims that are formulas, and properties that follow from them."""

from _claim import BLOG, NORMPROP, ONLINE, SLIDES, Claim, judged
from _results import Results, read
from formulas import (
    ANY,
    APART,
    BATCH,
    CONVOLUTION,
    DEEP,
    GROUPS,
    LAYER,
    LENGTH,
    LINEAR,
    LN_MODES,
    MEAN,
    MODES,
    REFUSES,
    REMARK_1,
    REMARK_2,
    RNN,
    TENSORFLOW,
    VARIANCE,
)  # fmt: skip

NAME = "formulas"
COMMAND = f"python examples/{NAME}.py --out examples/results"
ROWS = [
    (NORMPROP, "2, equation 1", "batch norm, (u - E u) / √var u", BATCH),
    (NORMPROP, "4.3, equation 9", "a fully connected layer", LINEAR),
    (NORMPROP, "4.3, equation 11", "a convolution", CONVOLUTION),
    (NORMPROP, "4.6, equation 12", "any activation, by the mean and deviation of what it puts out", ANY),
    (NORMPROP, "4.4, constraints", "the scale of weight vectors does not affect the network", LENGTH),
    (NORMPROP, "4.5", "validation is the same procedure as training", MODES),
    (BLOG, "I to III", "relu(gain (linear - mean) / std + bias) for each sample", LAYER),
    (BLOG, "Methods", "no running averages: training and test are the same procedure", LN_MODES),
    (SLIDES, "Batch Normalization", "algorithm 1, the batch normalising transform", BATCH),
    (SLIDES, "Batch Normalization", "tf.nn.batch_normalization, ε = 0.001", TENSORFLOW),
    (SLIDES, "Some details", "in a CNN, layer norm sums over (C, H, W)", GROUPS),
    (SLIDES, "Some details", "in an RNN, h = f[g / sigma (a - mu) + b], a = W h + W x", RNN),
]


def claims() -> list[Claim]:
    found = read(NAME)
    formulas = [_row(found, *row) for row in ROWS]
    return [*formulas, _remark(found, "3.2, remark 1", REMARK_1, 0.39894, 0.34085, "1/√2π, (1 - 1/π)/2"),
            _remark(found, "4.6, remark 2", REMARK_2, 0.29921, 0.44173, "for a = 0.25: 0.2992, 0.4417"),
            _every_layer(found), _batching(found)]  # fmt: skip


def _row(found: Results, seed: str, where: str, words: str, arm: str) -> Claim:
    apart = found.mean(arm, APART)
    return Claim(seed, where, words, "a formula", f"{apart:.1g} apart in float64", judged(apart < 1e-12), COMMAND)


def _remark(found: Results, where: str, arm: str, mean: float, variance: float, paper: str) -> Claim:
    ours = found.mean(arm, MEAN), found.mean(arm, VARIANCE)
    return Claim(
        NORMPROP, where, f"mean and variance of {arm}", paper, f"a million samples: {ours[0]:.4f}, {ours[1]:.4f}",
        judged(abs(ours[0] - mean) < 0.003, abs(ours[1] - variance) < 0.003), COMMAND,
    )  # fmt: skip


def _every_layer(found: Results) -> Claim:
    moments = [(found.mean(DEEP.format(k), MEAN), found.mean(DEEP.format(k), VARIANCE)) for k in range(2, 9)]
    return Claim(
        NORMPROP, "3.3", "by induction the input to every layer is canonical", "mean 0, variance 1",
        f"normal input, gain 1, 8 layers of 512 as initialised: means within {max(abs(m) for m, _ in moments):.3f}, "
        f"variance {moments[0][1]:.2f} entering layer 2, {moments[-1][1]:.2f} entering layer 8; with the gain 1/1.21 "
        "that the paper starts from it is not, see the pages on NormProp",
        judged(all(abs(m) < 0.05 and abs(v - 1) < 0.1 for m, v in moments)), COMMAND,
    )  # fmt: skip


def _batching(found: Results) -> Claim:
    return Claim(
        ONLINE, "1.1", "batch renorm (and, in our form, streaming norm) still relies on batches", "in words",
        "our layers of both refuse a single sample, as batch norm's does",
        judged(*(found.mean(arm, REFUSES) == 1 for arm in found.arms(REFUSES))), COMMAND,
    )  # fmt: skip
