"""Claims that are formulas, and properties that follow from them."""

from _claim import BLOG, NORMPROP, ONLINE, SLIDES, Claim, judged
from _results import Results, read
from formulas import (
    ALPHA,
    ANY,
    APART,
    BACKWARD,
    BATCH,
    CONSTANT,
    CONVOLUTION,
    DATA,
    DEEP,
    GAINS,
    GROUPS,
    INSTANCE,
    KERAS,
    LAYER,
    LENGTH,
    LINEAR,
    LN_MODES,
    LOOKED_AT,
    MEAN,
    MODES,
    RATIO,
    REFUSES,
    REMARK_1,
    REMARK_2,
    RNN,
    ROOT,
    TANH,
    TENSORFLOW,
    UNIT,
    VARIANCE,
    WEIGHT,
    WHOLE,
)  # fmt: skip

import normkernels as nk

NAME = "formulas"
COMMAND = f"python examples/{NAME}.py --out examples/results"
ROWS = [
    (NORMPROP, "2, equation 1", "batch norm, (u - E u) / √var u", BATCH),
    (NORMPROP, "3.2, proposition 1", "the nearest diagonal is that of the filters' squared lengths", ALPHA),
    (NORMPROP, "4.3, equation 9", "a fully connected layer", LINEAR),
    (NORMPROP, "4.3, equation 11", "a convolution", CONVOLUTION),
    (NORMPROP, "4.6, equation 12", "any activation, by the mean and deviation of what it puts out", ANY),
    (NORMPROP, "4.4, constraints", "the scale of weight vectors does not affect the network", LENGTH),
    (NORMPROP, "4.5", "validation is the same procedure as training", MODES),
    (BLOG, "I to III", "relu(gain (linear - mean) / std + bias) for each sample", LAYER),
    (BLOG, "Methods", "no running averages: training and test are the same procedure", LN_MODES),
    (SLIDES, "Batch Normalization", "algorithm 1, the batch normalising transform", BATCH),
    (SLIDES, "Batch Normalization", "tf.nn.batch_normalization, ε = 0.001", TENSORFLOW),
    (NORMPROP, "4.1", "normalised data spare the question which range they should have", DATA),
    (SLIDES, "Batch Normalization", "Keras's momentum=0.99, ours 0.01", KERAS),
    (SLIDES, "Some details", "in a CNN, layer norm sums over (C, H, W)", WHOLE),
    (SLIDES, "Group Normalization", "figure 2: group norm, over a part of the channels", GROUPS),
    (SLIDES, "Group Normalization", "figure 2: instance norm, over (H, W)", INSTANCE),
    (SLIDES, "Layer Norm, list", "other normalisations: weight normalisation", WEIGHT),
    (SLIDES, "Some details", "in an RNN, h = f[g / sigma (a - mu) + b], a = W h + W x", RNN),
]


def claims() -> list[Claim]:
    found = read(NAME)
    formulas = [_row(found, *row) for row in ROWS]
    return [*formulas, _remark(found, "3.2, remark 1", REMARK_1, 0.39894, 0.34085, "1/√2π, (1 - 1/π)/2"),
            _remark(found, "4.6, remark 2", REMARK_2, 0.29921, 0.44173, "for a = 0.25: 0.2992, 0.4417"),
            _simulated(found), _every_layer(found), _gradients(found), _backward(found), _batching(found)]  # fmt: skip


def _row(found: Results, seed: str, where: str, words: str, arm: str) -> Claim:
    apart = found.mean(arm, APART)
    return Claim(seed, where, words, "a formula", f"{apart:.1g} apart in float64", judged(apart < 1e-12), COMMAND)


def _remark(found: Results, where: str, arm: str, mean: float, variance: float, paper: str) -> Claim:
    ours = found.mean(arm, MEAN), found.mean(arm, VARIANCE)
    return Claim(
        NORMPROP, where, f"mean and variance of {arm}", paper, f"a million samples: {ours[0]:.4f}, {ours[1]:.4f}",
        judged(abs(ours[0] - mean) < 0.003, abs(ours[1] - variance) < 0.003), COMMAND,
    )  # fmt: skip


def _simulated(found: Results) -> Claim:
    c1, c2, _ = nk.activation_moments("tanh")
    ours = found.mean(TANH, MEAN), found.mean(TANH, VARIANCE) ** 0.5
    return Claim(
        NORMPROP, "4.6", "constants of other activations can be found analytically or by simulation", "in words",
        f"{TANH}, mean and deviation: {c2:.4f}, {c1:.4f} by quadrature, {ours[0]:.4f}, {ours[1]:.4f} of a million",
        judged(abs(ours[0] - c2) < 0.003, abs(ours[1] - c1) < 0.003), COMMAND,
    )  # fmt: skip


def _gradients(found: Results) -> Claim:
    ratios = {gain: found.mean(gain, RATIO) for gain in GAINS}
    first, unit = ratios.values()
    return Claim(
        NORMPROP, "3.4", "NormProp should keep gradients from exploding or vanishing", "in words",
        "12 layers of 512 as initialised, gradient at layer 1 over that at layer 12: "
        + ", ".join(f"{gain} {value:.2f}" for gain, value in ratios.items()),
        judged(0.5 < first < 2, abs(first - 1) < abs(unit - 1)), COMMAND,
    )  # fmt: skip


def _backward(found: Results) -> Claim:
    ours, constant = found.mean(BACKWARD, APART), found.mean(CONSTANT, APART)
    return Claim(
        SLIDES, "Batch Normalization", "back-propagation must account for the change", "in words",
        f"our backward is {ours:.1g} from the formula's derivative in float64, one that takes the statistics for "
        f"constants {constant:.1g}", judged(ours < 1e-12, constant > 0.01), COMMAND,
    )  # fmt: skip


def _every_layer(found: Results) -> Claim:
    first, last, (gain, _) = LOOKED_AT[0], LOOKED_AT[-1], GAINS
    ends = [f"{found.mean(gain, ROOT, at):.2f} and {found.mean(gain, UNIT, at):.2f}" for at in (first, last)]
    moments = [(found.mean(DEEP.format(k), MEAN), found.mean(DEEP.format(k), VARIANCE)) for k in range(2, 9)]
    return Claim(
        NORMPROP, "3.3", "by induction the input to every layer is canonical", "mean 0, variance 1",
        f"normal input, gain 1, 8 layers of 512 as initialised: means within {max(abs(m) for m, _ in moments):.3f}, "
        f"variance {moments[0][1]:.2f} entering layer 2, {moments[-1][1]:.2f} entering layer 8; with {gain}, "
        f"that the paper starts from, it is not: rms and deviation of a unit after layer {first} {ends[0]}, after "
        f"layer {last} {ends[1]}",
        judged(all(abs(m) < 0.05 and abs(v - 1) < 0.1 for m, v in moments)), COMMAND,
    )  # fmt: skip


def _batching(found: Results) -> Claim:
    return Claim(
        ONLINE, "1.1", "batch renorm (and, in our form, streaming norm) still relies on batches", "in words",
        "our layers of both refuse a single sample, as batch norm's does",
        judged(*(found.mean(arm, REFUSES) == 1 for arm in found.arms(REFUSES))), COMMAND,
    )  # fmt: skip
