"""What each instruction does to the lanes at hand: those that Triton and nvcc make of this package, and no others."""

import numpy as np

from .arithmetic import CONVERSIONS, OPERATIONS, bf16_to_f32, compare, directed, f32_to_bf16, saturated
from .memory import UNSIGNED, PTXError
from .parser import BYTES
from .transfers import convert_address, copy, listed, load, map_address, matrix, store


def execute(block, instruction) -> None:
    """One instruction; one that is not known is a PTXError."""
    name, *_ = instruction.opcode
    if name in SPECIAL:
        SPECIAL[name](block, instruction)
    elif name in OPERATIONS:
        _calculate(block, instruction)
    else:
        raise PTXError(f"unknown instruction: {instruction.text}")


def _move(block, instruction) -> None:
    into, source = instruction.arguments
    kind = instruction.opcode[-1]
    parts = listed(source if source[0] == "{" else into)
    width = 8 * BYTES[kind] // len(parts)
    if source[0] == "{":
        whole = np.zeros(len(block.lanes), np.uint64)
        for k, part in enumerate(parts):
            whole |= block.get(part, f"b{width}").astype(np.uint64) << np.uint64(width * k)
        block.put(into, whole.astype(UNSIGNED[BYTES[kind]]))
    elif into[0] == "{":
        whole = block.get(source, f"b{8 * BYTES[kind]}").astype(np.uint64)
        for k, part in enumerate(parts):
            block.put(part, (whole >> np.uint64(width * k)).astype(UNSIGNED[width // 8]))
    else:
        block.put(into, block.get(source, kind))


def _set_predicate(block, instruction) -> None:
    into, left, right, *more = instruction.arguments
    kind = instruction.opcode[-1]
    a, b = block.get(left, kind), block.get(right, kind)
    if kind == "bf16x2":  # a predicate for each half
        for name, k in zip(into.split("|"), (0, 16), strict=True):
            halves = (bf16_to_f32((v >> np.uint32(k)).astype(np.uint16)) for v in (a, b))
            block.put(name, compare(instruction.opcode[1], *halves))
        return
    a, b = (bf16_to_f32(a), bf16_to_f32(b)) if kind == "bf16" else (a, b)
    found = compare(instruction.opcode[1], a, b)
    if more:
        found = OPERATIONS[instruction.opcode[2]](found, block.get(more[0], "pred"))
    for name, value in zip(into.split("|"), (found, ~found), strict=False):
        block.put(name, value)


def _select(block, instruction) -> None:
    into, yes, no, guard = instruction.arguments
    kind = instruction.opcode[-1]
    block.put(into, np.where(block.get(guard, "pred"), block.get(yes, kind), block.get(no, kind)))


def _shuffle(block, instruction) -> None:
    into, source, lane = instruction.arguments[:3]
    other = block.get(lane, "u32").astype(np.int64)
    mine = block.lanes % 32
    asked = {"bfly": mine ^ other, "down": mine + other, "up": mine - other, "idx": other}[instruction.opcode[2]]
    at = block.lanes - mine + np.where((asked < 0) | (asked > 31), mine, asked)
    if not np.isin(at, block.lanes).all():
        raise PTXError(f"shuffle from a thread that is elsewhere: {instruction.text}")
    values = np.zeros(block.threads, np.uint32)
    values[block.lanes] = block.get(source, "b32")
    block.put(into.split("|")[0], values[at])


def _convert(block, instruction) -> None:
    into, *sources = instruction.arguments
    target, source = [part for part in instruction.opcode if part in BYTES]
    if target == "bf16x2":
        high, low = (f32_to_bf16(block.get(name, "f32")).astype(np.uint32) for name in sources)
        return block.put(into, high << np.uint32(16) | low)
    values = block.get(sources[0], source)
    values = bf16_to_f32(values) if source == "bf16" else values
    for rounding in CONVERSIONS.keys() & set(instruction.opcode):
        values = CONVERSIONS[rounding](values)
    values = saturated(values) if "sat" in instruction.opcode else values
    block.put(into, f32_to_bf16(values.astype(np.float32)) if target == "bf16" else values.astype(_dtype(target)))


def _dtype(kind: str) -> str:
    return {"b": "u", "s": "i"}.get(kind[0], kind[0]) + str(BYTES[kind])


def _permute(block, instruction) -> None:
    """prmt: each byte is one of the eight of two registers, or that one's sign."""
    into, low, high, which = instruction.arguments
    both = block.get(low, "u32").astype(np.uint64) | block.get(high, "u32").astype(np.uint64) << np.uint64(32)
    selector, found = block.get(which, "u32"), np.zeros(len(block.lanes), np.uint32)
    for k in range(4):
        nibble = (selector >> np.uint32(4 * k)) & np.uint32(15)
        byte = (both >> ((nibble & np.uint32(7)) * np.uint32(8)).astype(np.uint64)).astype(np.uint8)
        byte = np.where(nibble & np.uint32(8), np.where(byte & 128, 255, 0), byte)
        found |= byte.astype(np.uint32) << np.uint32(8 * k)
    block.put(into, found)


def _funnel(block, instruction) -> None:
    """shf: one word of two registers shifted as one; by the amount modulo 32, or 32 at most."""
    into, low, high, amount = instruction.arguments
    both = block.get(low, "u32").astype(np.uint64) | block.get(high, "u32").astype(np.uint64) << np.uint64(32)
    by = block.get(amount, "u32")
    by = (by & np.uint32(31) if "wrap" in instruction.opcode else np.minimum(by, np.uint32(32))).astype(np.uint64)
    found = both >> by if "r" in instruction.opcode else both << by >> np.uint64(32)
    block.put(into, found.astype(np.uint32))


def _halves(operation, kind: str, values: list[np.ndarray]) -> np.ndarray:
    """Of the low and of the high half of each value."""
    half, whole = (np.uint32, np.uint64) if kind == "f32x2" else (np.uint16, np.uint32)
    bits = 8 * np.dtype(half).itemsize

    def result(shift: int) -> np.ndarray:
        parts = [(v >> whole(shift)).astype(half) for v in values]
        if kind == "f32x2":
            return operation(*(part.view(np.float32) for part in parts)).view(half)
        return f32_to_bf16(operation(*map(bf16_to_f32, parts)))

    return result(bits).astype(whole) << whole(bits) | result(0).astype(whole)


def _calculate(block, instruction) -> None:
    into, *sources = instruction.arguments
    name, kind = instruction.opcode[0], instruction.opcode[-1]
    shift = name in ("shl", "shr")
    values = [block.get(a, "u32" if shift and k == 1 else kind) for k, a in enumerate(sources)]
    if "wide" in instruction.opcode:
        wide = kind[0] + str(16 * BYTES[kind])
        values = [v.astype(_dtype(wide)) for v in values[:2]] + [block.get(a, wide) for a in sources[2:]]
    if kind == "bf16" and instruction.opcode[-2] == "f32":  # but the last operand and the result
        values = [*map(bf16_to_f32, values[:-1]), block.get(sources[-1], "f32")]
        return block.put(into, OPERATIONS[name](*values))
    if kind in ("bf16x2", "f32x2"):
        return block.put(into, _halves(OPERATIONS[name], kind, values))
    if kind == "bf16":
        return block.put(into, f32_to_bf16(OPERATIONS[name](*map(bf16_to_f32, values))))
    rounding = {"rm", "rp", "rz"} & set(instruction.opcode)
    if kind == "f32" and rounding:
        found = directed(rounding.pop(), OPERATIONS[name], *values)
    else:
        found = OPERATIONS[name](*values)
    block.put(into, saturated(found) if "sat" in instruction.opcode else found)


def _trap(block, instruction) -> None:
    raise PTXError("a kernel stopped itself: trap")


SPECIAL = {"ld": load, "st": store, "cp": copy, "mov": _move, "setp": _set_predicate}
SPECIAL |= {
    "cvta": convert_address,
    "mapa": map_address,
    "ldmatrix": matrix,
    "stmatrix": matrix,
    "selp": _select,
    "shfl": _shuffle,
    "cvt": _convert,
    "prmt": _permute,
    "shf": _funnel,
    "trap": _trap,
}
