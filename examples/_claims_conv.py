"""Claims about conv nets in large batches and on single samples."""

from _claim import BLOG, NORMPROP, ONLINE, SLIDES, Claim, judged
from _results import Results, read
from conv_batch_sizes import ACCURACY, BATCH, BATCHES, GROUP, INSTANCE, LAYER, LOSS, NONE, REFUSED, RENORM, STABLE
from conv_batch_sizes import ONLINE as PAPERS

NAME = "conv_batch_sizes"
COMMAND = f"python examples/{NAME}.py --data fashion-mnist --out examples/results"
SINGLE = (GROUP, LAYER, INSTANCE)  # statistics of one sample


def claims() -> list[Claim]:
    numbers = read(NAME).numbers
    found = {b: Results(n for n in numbers if n.data.endswith(f"batches of {b}")) for b in BATCHES}
    return [_accelerates(found), _single(found), _any_batch(found), _large_enough(found), *_refused(found), _cnn(found)]


def _row(seed: str, where: str, words: str, ours: str, *checks: bool) -> Claim:
    return Claim(seed, where, words, "in words", ours, judged(*checks), COMMAND, f"{NAME}.png")


def _all(found: Results, arms: tuple[str, ...]) -> str:
    return ", ".join(f"{arm} {found.show(arm, ACCURACY)}" for arm in arms)


def _accelerates(found: dict[int, Results]) -> Claim:
    losses = {arm: found[64].mean(arm, LOSS, 1) for arm in (NONE, BATCH, GROUP, LAYER, INSTANCE, PAPERS)}
    text = ", ".join(f"{arm} {loss:.2f}" for arm, loss in losses.items())
    faster = [loss < losses[NONE] for arm, loss in losses.items() if arm != NONE]
    return _row(
        ONLINE,
        "1",
        "normalisation accelerates training",
        f"mean training loss of epoch 1, batches of 64: {text}",
        *faster,
    )


def _single(found: dict[int, Results]) -> Claim:
    best = max(found[64].mean(arm, ACCURACY) for arm in SINGLE)
    return _row(
        ONLINE, "1.1", "statistics of one sample (LN, GN, IN) are worse than those of a batch",
        f"batches of 64, % right: {_all(found[64], (BATCH, *SINGLE))}", found[64].mean(BATCH, ACCURACY) > best,
    )  # fmt: skip


def _any_batch(found: dict[int, Results]) -> Claim:
    bar = found[64].mean(BATCH, ACCURACY) - 1
    ours = {b: found[b].mean(PAPERS, ACCURACY) for b in (64, 1)}
    text = "; ".join(f"batches of {b}: {_all(found[b], (PAPERS, STABLE))}" for b in (64, 1))
    others = max(found[1].mean(arm, ACCURACY) for arm in SINGLE)
    return _row(
        ONLINE, "3", "online norm trains at any batch size, 1 included, as well as other norms or better",
        f"% right; batch norm in batches of 64 {found[64].show(BATCH, ACCURACY)}; {text}; the best other norm of "
        f"single samples {others:.1f}", ours[1] >= bar, ours[64] >= bar, ours[1] > others,
    )  # fmt: skip


def _large_enough(found: dict[int, Results]) -> Claim:
    return _row(
        SLIDES, "Why BN", "batch norm wants large mini-batches",
        f"% right: {found[64].show(BATCH, ACCURACY)} in batches of 64, {found[2].show(BATCH, ACCURACY)} in pairs "
        f"(batch renorm in pairs {found[2].show(RENORM, ACCURACY)}), refused for single values",
        found[2].mean(BATCH, ACCURACY) < found[64].mean(BATCH, ACCURACY) - 1,
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


def _cnn(found: dict[int, Results]) -> Claim:
    return _row(
        SLIDES, "Layer Norm, list", "layer norm might be not good at CNN: batch norm is better in some cases",
        f"batches of 64, % right: {_all(found[64], (BATCH, LAYER, GROUP))}",
        found[64].mean(BATCH, ACCURACY) > found[64].mean(LAYER, ACCURACY) + 1,
    )  # fmt: skip
