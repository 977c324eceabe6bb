"""Claims about streams of single samples."""

from _claim import BLOG, ONLINE, Claim, judged
from _results import Results, read
from _stream import ARMS, LAYER, PLAIN
from _stream import ONLINE as PAPERS
from stream import GUESS, RIGHT, best, by_stream, learns, too_fast

NAME = "stream"
COMMAND = f"python examples/{NAME}.py --data fashion-mnist --out examples/results"


def claims() -> list[Claim]:
    found = by_stream(read(NAME))
    return [_any_stream(found), _layer_norm(found)]


def _shown(found: Results, arms: tuple[str, ...]) -> str:
    shares = ", ".join(f"{arm} {found.show(arm, RIGHT, at=best(found, arm))}" for arm in arms)
    return f"{found.data} ({found.mean(PLAIN, GUESS):.0f} by guessing): {shares}"


def _best(found: Results, arm: str) -> float:
    return found.mean(arm, RIGHT, best(found, arm))


def _any_stream(found: list[Results]) -> Claim:
    checks, notes = [], []
    for each in found:
        fast = too_fast(each)
        checks.append(_best(each, PAPERS) > _best(each, PLAIN))
        if fast is not None:
            checks.append(learns(each, PAPERS, fast))
            notes.append(f"at {fast:g}, where no norm does not learn, {each.show(PAPERS, RIGHT, at=fast)}")
    text = "; ".join(_shown(each, tuple(ARMS)) for each in found)
    return Claim(
        ONLINE, "3", "online norm unlocks training on single samples", "in words",
        f"each sample predicted, then learnt from, once; % right, each at its best rate; {text}; online norm "
        + "; ".join(notes or ["was at no rate alone in learning"]), judged(*checks), COMMAND, f"{NAME}.png",
    )  # fmt: skip


def _layer_norm(found: list[Results]) -> Claim:
    text = "; ".join(_shown(each, (PLAIN, LAYER)) for each in found)
    return Claim(
        BLOG, "Introduction", "layer norm is a norm for systems that get single samples as a stream", "in words",
        f"each at its best rate, % right: {text}", judged(*(_best(each, LAYER) > _best(each, PLAIN) for each in found)),
        COMMAND, f"{NAME}.png",
    )  # fmt: skip
