"""Write the golden files: values and gradients in 50 digits with mpmath alone, no torch, gradients by differences.

python tests/golden/make.py
"""

from functools import partial

from activations import ACTIVATIONS
from answers import CHANNELS, answers, case, weights, write
from formulas import by_channel, by_row, constants, layer_norm, normprop, rms_norm, weight_norm, weight_standardization
from states import batch_renorm, online_norm, online_state, renorm_state, streaming_norm, streaming_state


def rows(norm, parameters):
    """Cases of 3 rows of 4 columns."""
    defaults = {"eps": 2.0**-16, "weight_offset": 0.0, "activation": "identity"}

    def make(optional, seed, **call):
        return case(partial(answers, by_row(norm)), (3, CHANNELS), optional, seed, **(defaults | call))

    cases = [make(parameters, i, activation=a) for i, a in enumerate(ACTIVATIONS)]
    cases += [make(("residual", *parameters), 100, activation="silu", weight_offset=1.0)]
    return [*cases, make((), 101), make(("residual",), 102, eps=0.5)]


def channels(answer, others=(), state=lambda numbers: {}, **call):
    """Cases of 2 images of 4 channels of 3 pixels; a row is one channel of one image. ``others``: more calls."""
    call |= {"eps": 2.0**-16, "activation": "identity"}

    def make(optional, seed, **more):
        return case(answer, (2 * CHANNELS, 3), optional, seed, state, **(call | more))

    cases = [make(("weight", "bias"), i, activation=a) for i, a in enumerate(ACTIVATIONS)]
    cases += [make(("skip", "weight", "bias"), 100, activation="silu")]
    cases += [make(("weight", "bias"), 200 + i, **other) for i, other in enumerate(others)]
    return [*cases, make((), 101), make(("skip",), 102, eps=0.5)]


def normprop_cases():
    shapes = {"input": (4, 5), "weight": (3, 5), "gain": (3,), "bias": (3,)}
    for i, (name, act) in enumerate(ACTIVATIONS.items()):
        yield weights(partial(normprop, act, *constants(act)), shapes, i, activation=name)


if __name__ == "__main__":
    write("layer_norm", rows(layer_norm, ("weight", "bias")))
    write("layer_norm_2d", rows(layer_norm, ("weight", "bias")))  # the rows are the pixels; the test transposes
    write("rms_norm", rows(rms_norm, ("weight", "bias")))
    no_state = {"running_mean": None, "running_var": None}
    write("batch_norm", channels(partial(answers, by_channel(lambda n, c: c)), training=True, **no_state))
    write("group_norm", channels(partial(answers, by_channel(lambda n, c: (n, c // 2))), num_groups=2))
    write("instance_norm", channels(partial(answers, by_channel(lambda n, c: (n, c)))))
    narrow = {"r_max": 1.25, "d_max": 0.5}
    renorm = {"training": True, "momentum": 0.25, "r_max": 3.0, "d_max": 5.0}
    write("batch_renorm", channels(batch_renorm, [narrow, {"r_max": 1.0, "d_max": 0.0}], renorm_state, **renorm))
    powers = [{"p": p} for p in (1.0, 1.5, 3.0)]
    forward = {"alpha": (0.5, 0.5), "beta": (0.5, 0.25, 0.25)}
    streaming = {"training": True, "p": 2.0, "alpha": (0.75, 0.25), "beta": (0.75, 0.0, 0.25)}
    write("streaming_norm", channels(streaming_norm, [*powers, forward], streaming_state, **streaming))
    guards = [{"guard": None}, {"guard": "clamp", "clamp": 1.0}]
    decays = [{"alpha_fwd": 0.5, "alpha_bkw": 0.25}, {"alpha_bkw": 0.25, "stable": True}]
    online = {"training": True, "alpha_fwd": 0.875, "alpha_bkw": 0.9375, "guard": "layer_scaling"}
    online |= {"ls_eps": 2.0**-10, "clamp": 5.0, "stable": False}
    write("online_norm", channels(online_norm, [*guards, *decays], online_state, **online))
    write("weight_norm", [weights(weight_norm, {"v": (3, 5), "g": (3,)}, 0)])
    gains = [{"w": (3, 5), "gain": (3,)}, {"w": (3, 5)}]
    write("weight_standardization", [weights(weight_standardization, k, i, eps=0.5**i) for i, k in enumerate(gains)])
    write("normprop", list(normprop_cases()))
