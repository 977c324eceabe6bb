"""The claim of the NormProp paper that its net trains on single images."""

from _claim import NORMPROP, Claim, judged
from _nin import NORMPROP as OURS
from _results import read
from nin import NAME, RIGHT

COMMAND = (
    f"python examples/{NAME}.py --data fashion-mnist --images 500 --tested 1000 --batch 1 --variants normprop "
    "--width 0.125 --epochs 3 --halve 2 --out examples/results"
)
LEARNT = 50  # %, where guessing gets 10


def claims() -> list[Claim]:
    found = read(NAME)
    return [
        Claim(
            NORMPROP, "5.4", "a NormProp network trains with batches of 1 as well", "drawn",
            f"the net for 3x32x32, an eighth of its filters, {found.data}, rate 0.001, then half, % right "
            f"after each: {', '.join(found.show(OURS, RIGHT, at=at) for at in found.at(OURS, RIGHT))}",
            judged(min(found.values(OURS, RIGHT)) > LEARNT), COMMAND, f"{NAME}.png",
        )
    ]  # fmt: skip
