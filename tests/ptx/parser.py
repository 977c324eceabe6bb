"""PTX as text, to a kernel that can be run."""

import re
from typing import NamedTuple

BYTES = {"pred": 1, "bf16": 2, "bf16x2": 4, "f32x2": 8} | {
    f"{kind}{bits}": bits // 8 for kind in "busf" for bits in (8, 16, 32, 64)
}


class Instruction(NamedTuple):
    """``@!%p1 ld.global.b32 %r1, [%rd1];`` has guard %p1, negated, and opcode (ld, global, b32)."""

    guard: str
    negated: bool
    opcode: tuple[str, ...]
    arguments: tuple[str, ...]
    text: str


class Kernel(NamedTuple):
    """One .entry: the bytes of its parameters, where its shared memory lies, types of registers, and its code."""

    name: str
    parameters: dict[str, tuple[int, int]]  # (offset, bytes)
    shared: dict[str, int]
    shared_bytes: int
    registers: dict[str, str]
    code: list[Instruction]
    labels: dict[str, int]
    targets: frozenset[int]  # of the labels
    most_threads: int  # that it was compiled for
    cluster: tuple[int, int, int] | None  # the blocks of one, where its code says so


def entries(ptx: str) -> dict[str, str]:
    """What each .entry of a module is called, and its text."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    head, *rest = re.split(r"(?=^(?:\.visible |\.weak )?\.entry )", ptx, flags=re.M)
    return {re.findall(r"\.entry\s+([\w$]+)", text)[0]: head + text for text in rest}


def parse(ptx: str) -> Kernel:
    """The first .entry of a module."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    ptx = re.sub(r"(?m)^\s*\.(loc|file)\b[^\n]*$", "", ptx)
    entry = re.search(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{]*)\{", ptx, re.S)
    assert entry is not None, "no .entry in the PTX"
    depth, end = 1, entry.end()
    while depth:
        depth += {"{": 1, "}": -1}.get(ptx[end], 0)
        end += 1
    body = ptx[entry.end() : end - 1]
    shared, shared_bytes = _shared(ptx[: entry.start()] + body)
    code, labels = _code(body)
    targets, most = frozenset(labels.values()), re.search(r"\.(?:max|req)ntid\s+(\d+)", entry[3])
    threads = int(most[1]) if most else 1024
    found = entry[1], _parameters(entry[2]), shared, shared_bytes, _registers(body), code, labels, targets, threads
    return Kernel(*found, _cluster(entry[3]))


def _cluster(directives: str) -> tuple[int, int, int] | None:
    """``.reqnctapercluster 8`` or ``4, 1, 1``."""
    if found := re.search(r"\.reqnctapercluster\s+([\d, ]+)", directives):
        x, y, z = [*map(int, found[1].split(",")), 1, 1][:3]
        return x, y, z
    return None


def _parameters(text: str) -> dict[str, tuple[int, int]]:
    """A struct is an array of bytes, aligned as its widest member."""
    found, offset = {}, 0
    for line in filter(None, map(str.strip, text.split(","))):
        kind = re.search(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s.*?([\w$]+)(?:\[(\d+)\])?$", line)
        assert kind is not None, line
        size = BYTES[kind[2]] * int(kind[4] or 1)
        align = int(kind[1] or size)
        offset = -(-offset // align) * align
        found[kind[3]] = offset, size
        offset += size
    return found


def _shared(text: str) -> tuple[dict[str, int], int]:
    """Where each array begins; what has no size, and is as large as the launch says, comes last."""
    found, at = {}, 0
    arrays = re.findall(r"\.shared\s+\.align\s+(\d+)\s+\.(\w+)\s+([\w$]+)\[(\d*)\]", text)
    for align, kind, name, size in sorted(arrays, key=lambda array: not array[-1]):
        at = -(-at // int(align)) * int(align)
        found[name] = at
        at += BYTES[kind] * int(size or 0)
    return found, at


def _registers(body: str) -> dict[str, str]:
    found = {}
    for kind, names in re.findall(r"\.reg\s+\.(\w+)\s+([^;]+);", body):
        for name in names.split(","):
            many = re.fullmatch(r"(%\w+)<(\d+)>", name.strip())
            each = [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name.strip()]
            found |= dict.fromkeys(each, kind)
    return found


def _code(body: str) -> tuple[list[Instruction], dict[str, int]]:
    code, labels = [], {}
    for statement in body.split(";"):
        text = " ".join(statement.split()).lstrip("{} ")
        while label := re.match(r"(\$?\w+):\s*", text):
            labels[label[1]] = len(code)
            text = text[label.end() :].lstrip("{} ")
        if not text or text.startswith("."):
            continue
        guard = re.match(r"@(!?)(%?\w+)\s+", text)
        plain = text[guard.end() :] if guard else text
        opcode, _, rest = plain.partition(" ")
        found = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]]+", rest)
        arguments = tuple(a.strip() for a in found if a.strip())
        negated = guard is not None and guard[1] == "!"
        code.append(Instruction(guard[2] if guard else "", negated, tuple(opcode.split(".")), arguments, text))
    return code, labels
