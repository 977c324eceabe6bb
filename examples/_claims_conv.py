"""Claims about conv nets in large batches and on single samples."""

from _claim import BLOG, NORMPROP, ONLINE, SLIDES, Claim, judged
from _results import Results, read
from conv_batch_sizes import (
    ACCURACY,
    BATCH,
    BATCHES,
    GROUP,
    INSTANCE,
    KEPT,
    LAYER,
    LOSS,
    NONE,
    RATE,
    RATES,
    REFUSED,
    RENORM,
    STABLE,
)  # fmt: skip
from conv_batch_sizes import ONLINE as PAPERS

NAME = "conv_batch_sizes"
COMMAND = f"python examples/{NAME}.py --data fashion-mnist --out examples/results"
SINGLE = (GROUP, LAYER, INSTANCE)  # statistics of one sample


def claims() -> list[Claim]:
    numbers = read(NAME).numbers
    found = {b: Results(n for n in numbers if n.data.endswith(f"batches of {b}")) for b in BATCHES}
    return [*_accelerates(found), _single(found), _any_batch(found), *_large_enough(found), _memory(found),
            *_refused(found), *_cnn(found), _layer_norm(found)]  # fmt: skip


def _row(seed: str, where: str, words: str, ours: str, *checks: bool) -> Claim:
    return Claim(seed, where, words, "in words", ours, judged(*checks), COMMAND, f"{NAME}.png")


def _all(found: Results, arms: tuple[str, ...]) -> str:
    return ", ".join(f"{arm} {found.show(arm, ACCURACY)}" for arm in arms)


def _rates(found: dict[int, Results], arms: tuple[str, ...]) -> str:
    """Chosen by a validation, in batches of 64; one at an end of those tried says so."""
    ends = {min(RATES): " (the lowest tried)", max(RATES): " (the highest tried)"}
    rates = (found[64].mean(arm, RATE) for arm in arms)
    return "at the best rates, " + ", ".join(f"{rate:g}{ends.get(rate, '')}" for rate in rates)


def _accelerates(found: dict[int, Results]) -> list[Claim]:
    losses = {arm: found[64].mean(arm, LOSS, 1) for arm in (NONE, BATCH, GROUP, LAYER, INSTANCE, PAPERS)}
    text = ", ".join(f"{arm} {loss:.2f}" for arm, loss in losses.items())
    faster = [loss < losses[NONE] for arm, loss in losses.items() if arm != NONE]
    head = "mean training loss of epoch 1, batches of 64, each at its best rate"
    batch = f"{head}: no norm {losses[NONE]:.2f}, batch norm {losses[BATCH]:.2f}; % right at the end: "
    return [
        _row(ONLINE, "1", "normalisation accelerates training", f"{head}: {text}", *faster),
        _row(BLOG, "Introduction", "batch norm trains models faster and often more robustly",
             batch + _all(found[64], (NONE, BATCH)), losses[BATCH] < losses[NONE],
             found[64].mean(BATCH, ACCURACY) > found[64].mean(NONE, ACCURACY)),
    ]  # fmt: skip


def _single(found: dict[int, Results]) -> Claim:
    least = found[64].mean(BATCH, ACCURACY) - 1
    return _row(
        ONLINE, "1.1", "statistics of one sample (LN, GN, IN) are worse than those of a batch",
        f"batches of 64, {_rates(found, (BATCH, *SINGLE))}, % right: {_all(found[64], (BATCH, *SINGLE))}",
        *(found[64].mean(arm, ACCURACY) < least for arm in SINGLE),
    )  # fmt: skip


def _any_batch(found: dict[int, Results]) -> Claim:
    bar = found[64].mean(BATCH, ACCURACY) - 1
    ours = {b: found[b].mean(PAPERS, ACCURACY) for b in (64, 1)}
    text = "; ".join(f"batches of {b}: {_all(found[b], (PAPERS, STABLE))}" for b in (64, 1))
    others = max(found[1].mean(arm, ACCURACY) for arm in SINGLE)
    return _row(
        ONLINE, "3", "online norm trains at any batch size, 1 included, as well as other norms or better",
        f"% right, each at its best rate of 64 samples; batch norm in batches of 64 "
        f"{found[64].show(BATCH, ACCURACY)}; {text}; the best other norm of single samples "
        f"{others:.1f}", ours[1] >= bar, ours[64] >= bar, ours[1] > others,
    )  # fmt: skip


def _large_enough(found: dict[int, Results]) -> list[Claim]:
    text = (f"% right: {found[64].show(BATCH, ACCURACY)} in batches of 64, {found[2].show(BATCH, ACCURACY)} in pairs "
            f"(batch renorm in pairs {found[2].show(RENORM, ACCURACY)}), refused for single values")  # fmt: skip
    better = found[2].mean(BATCH, ACCURACY) < found[64].mean(BATCH, ACCURACY) - 1
    return [
        _row(SLIDES, "Why BN", "batch norm wants large mini-batches", text, better),
        _row(SLIDES, "Batch Norm, list", "stable if the batch size is large", text, better),
        _row(
            ONLINE, "1.1", "batching tends to be effective only when a sufficiently large batch is used", text, better
        ),
    ]


def _memory(found: dict[int, Results]) -> Claim:
    kept = {b: found[b].mean(PAPERS, KEPT) for b in (64, 1)}
    return _row(
        ONLINE, "1.1", "batching compounds the memory that activations need, a batch of 1 does not",
        f"kept for backward by the net with online norm: {kept[64]:.1f} MB of 64 images, {kept[1]:.2f} of one",
        kept[64] > 30 * kept[1],
    )  # fmt: skip


def _refused(found: dict[int, Results]) -> list[Claim]:
    refused = found[1].mean(BATCH, REFUSED) == 1
    text = "one value for each channel raises an error, as in torch (with one image batch norm is instance norm)"
    places = (
        (NORMPROP, "Abstract", "batch norm cannot train with batches of 1"),
        (BLOG, "Introduction", "batch norm is no option for streams of single samples"),
        (SLIDES, "Batch Norm, list", "batch norm is not good for online learning"),
    )
    return [_row(seed, where, words, text, refused) for seed, where, words in places]


def _cnn(found: dict[int, Results]) -> list[Claim]:
    text = (f"batches of 64, {_rates(found, (BATCH, LAYER, GROUP))}, % right: "
            f"{_all(found[64], (BATCH, LAYER, GROUP))}")  # fmt: skip
    behind = found[64].mean(BATCH, ACCURACY) > found[64].mean(LAYER, ACCURACY) + 1
    words = "layer norm might be not good at CNN: batch norm is better in some cases"
    return [
        _row(SLIDES, "Layer Norm, list", words, text, behind),
        _row(BLOG, "Introduction", "layer norm is no drop-in replacement in conv nets", text, behind),
    ]


def _layer_norm(found: dict[int, Results]) -> Claim:
    text = f"single images, each at its best rate of 64, % right: {_all(found[1], (NONE, LAYER))}; "
    return _row(
        BLOG, "Introduction", "layer norm also works for a batch size of 1",
        f"{text}in batches of 64 {_all(found[64], (LAYER,))}",
        found[1].mean(LAYER, ACCURACY) > found[1].mean(NONE, ACCURACY),
        found[1].mean(LAYER, ACCURACY) > found[64].mean(LAYER, ACCURACY) - 1,
    )  # fmt: skip
