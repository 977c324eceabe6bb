"""Arithmetic on lanes. What a GPU approximates is exact here: tolerances hold for both."""

import numpy as np


def bf16_to_f32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(values: np.ndarray) -> np.ndarray:
    """To the nearest, ties to even; every NaN is one."""
    bits = values.astype(np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def saturated(values: np.ndarray) -> np.ndarray:
    """Between 0 and 1, where NaN is 0."""
    return np.where(np.isnan(values), values.dtype.type(0), np.clip(values, 0, 1))


def compare(how: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``ltu`` and its like are true of NaN; ``lo`` and its like are those of unsigned integers."""
    if how in ("nan", "num"):
        return (np.isnan(a) | np.isnan(b)) ^ (how == "num")
    plain = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.get(how, how[:2])
    known = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal}
    found = (known | {"gt": np.greater, "ge": np.greater_equal})[plain](a, b)
    if a.dtype.kind != "f":
        return found
    unordered = np.isnan(a) | np.isnan(b)
    return found | unordered if how.endswith("u") else found & ~unordered


def _multiply_add(a, b, c):
    """One rounding, or in float64 one and a fine one before it; integers wrap."""
    wide = {np.dtype("f4"): np.float64, np.dtype("f8"): np.longdouble}.get(a.dtype)
    return a * b + c if wide is None else (a.astype(wide) * b + c).astype(a.dtype)


def directed(how: str, function, *values: np.ndarray) -> np.ndarray:
    """Of float32, rounded down (rm), up (rp) or towards zero (rz)."""
    exact = function(*(v.astype(np.float64) for v in values))
    found = exact.astype(np.float32)
    low, high = np.float32(-np.inf), np.float32(np.inf)
    towards = {"rm": low, "rp": high, "rz": np.float32(0)}[how]
    beyond = {"rm": found > exact, "rp": found < exact, "rz": np.abs(found) > np.abs(exact)}[how]
    return np.where(beyond & np.isfinite(exact), np.nextafter(found, towards), found)


def _in_double(function):
    """Of float32 through float64, so that one rounding remains."""
    return lambda *values: function(*(v.astype(np.float64) for v in values)).astype(values[0].dtype)


def _divide(a, b):
    """Integers are cut towards zero."""
    if a.dtype.kind == "f":
        return _in_double(np.divide)(a, b)
    quotient = np.abs(a.astype(np.int64)) // np.maximum(np.abs(b.astype(np.int64)), 1)
    return np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)


def _remainder(a, b):
    return np.fmod(a, np.where(b == 0, 1, b).astype(b.dtype))


def _shift(function):
    """A shift by all the bits or more leaves nothing, or the sign."""

    def shifted(a, by):
        width = 8 * a.dtype.itemsize
        found = function(a, np.minimum(by, width - 1).astype(a.dtype))
        signed = function is np.right_shift and a.dtype.kind == "i"
        return found if signed else np.where(by >= width, 0, found).astype(a.dtype)

    return shifted


def _extract(a, at, size):
    """bfe: so many bits from there on, the highest of them the sign where integers have one."""
    at, size = at.astype(np.uint64), size.astype(np.uint64)
    bits = (a.astype(np.uint64) >> at) & ((np.uint64(1) << size) - np.uint64(1))
    top = np.uint64(1) << np.maximum(size, np.uint64(1)) - np.uint64(1)
    return ((bits ^ top) - top if a.dtype.kind == "i" else bits).astype(a.dtype)


OPERATIONS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mad": _multiply_add,
    "fma": _multiply_add,
    "div": _divide,
    "rem": _remainder,
    "neg": np.negative,
    "abs": np.abs,
    "min": np.fmin,
    "max": np.fmax,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": _shift(np.left_shift),
    "shr": _shift(np.right_shift),
    "bfe": _extract,
    "rsqrt": _in_double(lambda x: 1 / np.sqrt(x)),
    "sqrt": _in_double(np.sqrt),
    "rcp": _in_double(np.reciprocal),
    "ex2": _in_double(np.exp2),
    "lg2": _in_double(np.log2),
    "tanh": _in_double(np.tanh),
    "copysign": lambda sign, x: np.copysign(x, sign),
}
CONVERSIONS = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}
