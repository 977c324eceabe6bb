"""One row of docs/claims.md."""

from dataclasses import dataclass

NORMPROP, ONLINE = "Normalization Propagation", "Online Normalization"
BLOG, SLIDES = "Online learning with layer norm", "Deep learning normalization"
REPRODUCED, PARTLY, NOT, UNMEASURED = VERDICTS = ("reproduced", "partly", "not reproduced", "not measured")


@dataclass(frozen=True)
class Claim:
    """``where``: section or slide; ``paper``: its number, or "in words"; ``plot``: of examples/results."""

    seed: str
    where: str
    words: str
    paper: str
    ours: str
    verdict: str
    command: str
    plot: str = ""


def judged(*checks: bool) -> str:
    """Reproduced where all of a claim's parts hold, partly where some do."""
    return REPRODUCED if all(checks) else PARTLY if any(checks) else NOT
