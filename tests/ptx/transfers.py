"""Instructions that move between registers and memory."""

import numpy as np

from .memory import UNSIGNED, PTXError
from .parser import BYTES
from .shared import FAR, WINDOW


def listed(braces: str) -> list[str]:
    return [name.strip() for name in braces.strip("{}").split(",")]


def _address(block, argument: str) -> np.ndarray:
    """``[%rd1 + 16]``, of every lane."""
    base, _, offset = argument.strip("[] ").replace(" ", "").partition("+")
    kind = "b64" if block.kernel.registers.get(base) in ("b64", "u64", "s64") else "b32"
    return block.get(base, kind).astype(np.int64) + int(offset or "0", 0)


def _space(block, opcode, at: np.ndarray):
    """What an instruction means, and where in there; without a word of it addresses are generic."""
    if any(part.startswith("shared") for part in opcode):
        if "shared::cluster" not in opcode and (at >= FAR).any():
            raise PTXError(f"shared memory of another block as if one's own: {'.'.join(opcode)}")
        return block.shared, at
    return (block.memory, at) if "global" in opcode or (at < WINDOW).any() else (block.shared, at - WINDOW)


def _aligned(at: np.ndarray, size: int, text: str) -> None:
    if (at % size).any():
        raise PTXError(f"misaligned vector: {text}")


def load(block, instruction) -> None:
    into, source = instruction.arguments
    kind = instruction.opcode[-1]
    size = BYTES[kind]
    names, at = listed(into), _address(block, source)
    _aligned(at, size * len(names), instruction.text)
    if "param" in instruction.opcode:
        values = [block.constants.view(UNSIGNED[size])[at // size + k] for k in range(len(names))]
    else:
        space, at = _space(block, instruction.opcode, at)
        values = [space.load(at + k * size, size, instruction.text) for k in range(len(names))]
    for name, value in zip(names, values, strict=True):
        block.put(name, value.view(f"i{size}") if kind[0] == "s" else value)


def store(block, instruction) -> None:
    target, source = instruction.arguments
    size = BYTES[instruction.opcode[-1]]
    names, at = listed(source), _address(block, target)
    _aligned(at, size * len(names), instruction.text)
    space, at = _space(block, instruction.opcode, at)
    for k, name in enumerate(names):
        value = block.get(name, f"b{8 * size}")
        space.store(at + k * size, value, size, instruction.text)


def convert_address(block, instruction) -> None:
    """cvta: from shared memory to generic addresses, or back; other spaces are as they are."""
    into, source = instruction.arguments
    at = _address(block, source)
    if any(part.startswith("shared") for part in instruction.opcode):
        at = at - WINDOW if "to" in instruction.opcode else at + WINDOW
    block.put(into, at.view(np.uint64))


def map_address(block, instruction) -> None:
    """mapa: the same place in the shared memory of the block of that rank."""
    into, source, rank = instruction.arguments
    size, at = BYTES[instruction.opcode[-1]], _address(block, source)
    which = block.get(rank, "u32").astype(np.int64)
    if (which >= block.get("%cluster_nctarank", "u32")).any():
        raise PTXError(f"a rank that the cluster has not: {instruction.text}")
    generic = 0 if "shared::cluster" in instruction.opcode else WINDOW
    far = np.where(which == block.rank, 0, which + 1) * FAR
    block.put(into, (generic + far + at % FAR).astype(UNSIGNED[size]))


def copy(block, instruction) -> None:
    """cp.async moves nothing before its group is waited for, and until then nobody may read where it goes."""
    what = instruction.opcode[2]
    for warp in np.unique(block.warps[block.lanes]):
        mine = block.warps[block.lanes] == warp
        groups = block.copies.setdefault(int(warp), [[]])
        if what == "commit_group":
            groups.append([])
        elif what in ("wait_group", "wait_all"):
            left = int(instruction.arguments[0], 0) + 1 if what == "wait_group" else 0
            done = groups[: max(0, len(groups) - left)]
            block.copies[int(warp)] = groups[len(done) :] or [[]]
            for copy in (copy for group in done for copy in group):
                _complete(block, *copy)
        else:
            target, source, size = instruction.arguments[:3]
            real = block.get((*instruction.arguments, size)[3], "u32").astype(np.int64)[mine]
            into, of = _address(block, target)[mine], _address(block, source)[mine]
            block.shared.forget(into, int(size, 0))
            groups[-1].append((into, of, int(size, 0), real, instruction.text))


def _complete(block, target, source, size: int, real, text: str) -> None:
    """What lies beyond the real bytes becomes zero."""
    for k in range(0, size, 4):
        values = np.zeros(len(target), np.uint32)
        values[real > k] = block.memory.load(source[real > k] + k, 4, text)
        block.shared.store(target + k, values, 4, text)


def matrix(block, instruction) -> None:
    """ldmatrix, stmatrix: lane 8 j + r has the address of row r of the j-th matrix of 8 by 8 halves."""
    load = instruction.opcode[0] == "ldmatrix"
    registers, source = instruction.arguments if load else instruction.arguments[::-1]
    rows = np.zeros(block.threads, np.int64)
    rows[block.lanes] = _address(block, source)
    lane, first = block.lanes % 32, block.lanes - block.lanes % 32
    for j, name in enumerate(listed(registers)):
        words = np.zeros(len(lane), np.uint32) if load else block.get(name, "b32")
        for half in (0, 1):
            row, column = lane // 4, lane % 4 * 2 + half
            row, column = (column, row) if "trans" in instruction.opcode else (row, column)
            at, shift = rows[first + 8 * j + row] + 2 * column, np.uint32(16 * half)
            if load:
                words |= block.shared.load(at, 2, instruction.text).astype(np.uint32) << shift
            else:
                block.shared.store(at, (words >> shift).astype(np.uint16), 2, instruction.text)
        if load:
            block.put(name, words)
