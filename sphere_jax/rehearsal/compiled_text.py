"""Reads what XLA prints of a compiled program: cycles, collectives, loops.

Numbers are of one device and one run of the program: an instruction inside a loop counts once for
each iteration.
"""

import dataclasses
import math
import re
from collections import defaultdict

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?[\s)\]}])([a-z][\w\-]*)\((.*)$")
_TYPE = re.compile(r"\b(pred|[subf]\d+|bf16|c64|f8\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)="
    r"(?:%?([\w.\-]+)|\{([^}]*)\})"
)
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
# {{0,1},{2,3}}, [2,2]<=[4], or mesh['a'=2,'b'=2] ... {'a'}, where a part of an axis is 'a':(1)2
_GROUPS = re.compile(
    r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\]<=|mesh\[([^\]]*)\][^{]*\{([^}]*)\})"
)
_AXIS = re.compile(r"'(\w+)'(?:=|:\(\d+\))?(\d+)?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """kind; size: bytes of the whole array on one device, as gathered or reduced; devices: of a
    group; times: that it runs; overlapped: whether other instructions run meanwhile."""

    kind: str
    size: int
    devices: int
    times: int
    overlapped: bool

    @property
    def moved(self) -> float:
        """Bytes that each device sends in a ring: (n-1)/n of the array, twice to reduce it
        everywhere."""
        passes = 2 if self.kind == "all-reduce" else 1
        if self.kind == "collective-permute":
            return float(self.times * self.size)
        return self.times * passes * self.size * (self.devices - 1) / max(self.devices, 1)


@dataclasses.dataclass(frozen=True)
class Operation:
    """An instruction with the compiler's estimate: cycles of all its runs."""

    name: str
    kind: str
    op_name: str
    cycles: int
    times: int


@dataclasses.dataclass(frozen=True)
class Program:
    collectives: tuple[Collective, ...]
    operations: tuple[Operation, ...]  # the costliest first; none where a compiler has no estimates
    cycles: int


@dataclasses.dataclass
class _Line:
    name: str
    shape: str
    kind: str
    rest: str


def read_program(text: str) -> Program:
    """From the text of a compiled module (`jax.stages.Compiled.as_text`)."""
    computations, entry = _computations(text)
    times, fused = _times(computations, entry)
    operations = []
    for name, lines in computations.items():
        for line in lines:
            count = times[name]
            cycles = _CYCLES.search(line.rest)
            if cycles and count and name not in fused and line.kind != "while":
                found = _OP_NAME.search(line.rest)
                operations.append(
                    Operation(
                        line.name,
                        line.kind,
                        found.group(1) if found else "",
                        int(cycles.group(1)) * count,
                        count,
                    )
                )
    operations.sort(key=lambda operation: -operation.cycles)
    total = sum(operation.cycles for operation in operations)
    return Program(_collectives(computations, times), tuple(operations), total)


def bytes_of_type(shape: str) -> list[int]:
    """Bytes of every array in a type as XLA writes it, say "(f32[2,3]{1,0}, bf16[4])"."""
    found = []
    for kind, axes in _TYPE.findall(shape):
        bits = 8 if kind == "pred" else int(re.search(r"\d+", kind).group(0))
        found.append(math.prod(int(n) for n in axes.split(",") if n) * bits // 8)
    return found


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
    found: dict[str, list[_Line]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            lines = found.setdefault(header.group(2), [])
            entry = header.group(2) if header.group(1) else entry
        elif instruction := _INSTRUCTION.match(line):
            lines.append(_Line(*instruction.groups()))
    return found, entry


def _times(computations: dict[str, list[_Line]], entry: str) -> tuple[dict[str, int], set[str]]:
    """How often each computation runs, and which are the inside of one instruction (a fusion, or
    the sum of a reduction), whose cycles that instruction has."""
    times: dict[str, int] = defaultdict(int)
    fused: set[str] = set()

    def visit(name: str, count: int, inside: bool) -> None:
        times[name] += count
        if inside:
            fused.add(name)
        for line in computations.get(name, ()):
            below = count * (_trips(line, computations) if line.kind == "while" else 1)
            opens = line.kind in ("while", "call", "conditional") or line.kind.startswith("async")
            for single, several in _CALLED.findall(line.rest):
                for called in (single or several).replace("%", "").split(","):
                    if called.strip() in computations:
                        visit(called.strip(), below, inside or not opens)

    visit(entry, 1, False)
    return times, fused


def _trips(line: _Line, computations: dict[str, list[_Line]]) -> int:
    """Iterations of a loop: as annotated, or the constant that its counter, from 0, is compared
    with; 1 where neither is known."""
    if known := _TRIPS.search(line.rest):
        return int(known.group(1))
    condition = _CONDITION.search(line.rest)
    lines = computations.get(condition.group(1), ()) if condition else ()
    limits = [each.rest for each in lines if each.kind == "constant" and "s32[]" in each.shape]
    counts_up = any(each.kind == "compare" and "direction=LT" in each.rest for each in lines)
    if len(limits) != 1 or not counts_up:
        return 1
    return max(int(limits[0].partition(")")[0]), 1)


def _collectives(
    computations: dict[str, list[_Line]], times: dict[str, int]
) -> tuple[Collective, ...]:
    """Each once: it stands in several computations where it is fused with what runs meanwhile."""
    found: dict[tuple[str, str], Collective] = {}
    for name, lines in computations.items():
        for line in lines if times[name] else ():
            if not (kind := _collective(line.kind)):
                continue
            if "all-reduce-scatter" in name:  # a fusion of a sum and of the part that is kept
                kind = "reduce-scatter"
            each = _read_collective(kind, line, times[name], "async" in name)
            channel = _CHANNEL.search(line.rest)
            key = (kind, channel.group(1)) if channel else (name, line.name)
            known = found.get(key, each)
            most = max(known, each, key=lambda one: one.times * one.size)
            overlapped = known.overlapped or each.overlapped
            found[key] = dataclasses.replace(most, overlapped=overlapped)
    return tuple(found.values())


def _collective(kind: str) -> str:
    name = kind.removesuffix("-start")
    return name if name in COLLECTIVES else ""


def _read_collective(kind: str, line: _Line, times: int, overlapped: bool) -> Collective:
    devices = _group_size(line.rest)
    sizes = bytes_of_type(line.shape) or [0]
    # Started collectives are a tuple of operand and result; others may be a tuple of results.
    size = max(sizes) if line.kind.endswith("-start") else sum(sizes)
    if line.kind == "reduce-scatter":
        size *= devices
    overlapped = overlapped or line.kind.endswith("-start")
    return Collective(kind, size, devices, times, overlapped)


def _group_size(rest: str) -> int:
    """Devices that take part in one group of a collective."""
    groups = _GROUPS.search(rest)
    if groups is None:
        return 1
    listed, size, mesh, named = groups.groups()
    if listed:
        return len(listed.split(","))
    if size:
        return int(size)
    sizes = dict(_AXIS.findall(mesh))
    return math.prod(int(part or sizes[axis]) for axis, part in _AXIS.findall(named))
