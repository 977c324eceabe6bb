"""The constants of NormProp: standard deviation, mean and gain of the Jacobian of every activation, by quadrature.

python tests/golden/moments.py
"""

import json
import math

from activations import ACTIVATIONS
from answers import HERE
from formulas import constants
from mpmath import diff, inf, mpf, npdf, quad, sqrt

POINTS = [-inf, -20, -6, -3, -1, 0, 1, 3, 6, 20, inf]  # every kink is one
SLOPES = [-2.0, -1 / (math.pi - 1), 0.0, 0.25, 1.0]


def moments(f):
    c1, c2 = constants(f)
    return [c1, c2, sqrt(quad(lambda z: diff(f, z, h=mpf(10) ** -20) ** 2 * npdf(z), POINTS)) / c1]


def prelu(slope):
    return lambda u: u if u > 0 else mpf(slope) * u


if __name__ == "__main__":
    found = {name: moments(f) for name, f in ACTIVATIONS.items()}
    found["prelu"] = [[slope, *moments(prelu(slope))[:2]] for slope in SLOPES]
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, default=float)}" for k, v in found.items())
    (HERE / "moments.json").write_text(f"{{\n{lines}\n}}\n")
