"""What a compiled program needs and costs on a pod, from the compiler's text and a stated model.

The compiler estimates the cycles of every instruction but not the time of transfers between chips.
These are added: in a ring, each chip sends (n-1)/n of a gathered or scattered array and twice that
of a reduced one, at half the published bandwidth of its links (one direction). Two times follow:
transfers wholly hidden behind the arithmetic, and not at all.
"""

import dataclasses
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax

from sphere_jax.common.files import in_bytes
from sphere_jax.rehearsal.chips import Chip
from sphere_jax.rehearsal.compiled_text import Program, read_program
from sphere_jax.rehearsal.programs import Rehearsed
from sphere_jax.training.flops import PRODUCTS, product_flops

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SHOWN = 10  # operations
# In the compiler's error: all that a program needs, or its temporaries alone.
NEEDED = re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", re.IGNORECASE)
TEMPORARIES = re.compile(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one program on one mesh, ready for JSON.

    Bytes are of one chip. parts: what lies in memory before and after it, by kind. temporaries:
    while it runs. fits: None where the chip has no known memory. collectives: by kind, (count,
    bytes of the arrays, bytes sent, bytes of these that are sent while other instructions run).
    largest_gather: bytes of the largest array that is gathered at once. seconds: (transfers
    hidden, not hidden) of one run; None without the compiler's estimate. utilisation: of the
    chips' bfloat16 peak, for the same two.
    float32: share of the FLOPs of products whose factors are float32 where bfloat16 is meant, and
    where they are. not_donated: bytes of the state that the program does not write in place.
    """

    program: str
    topology: str
    mesh: dict[str, int]
    chips: int
    examples: int
    flops: float
    parts: dict[str, int]
    temporaries: int
    peak: int
    memory: float | None
    fits: bool | None
    bytes_accessed: float
    collectives: dict[str, tuple[int, int, float, float]]
    largest_gather: int
    seconds: tuple[float, float] | None
    ideal: float | None
    utilisation: tuple[float, float] | None
    days: tuple[float, float] | None
    float32: tuple[float, tuple[str, ...]]
    not_donated: int
    costliest: tuple[tuple[str, str, float], ...]
    advice: tuple[str, ...] = ()


def estimate(rehearsed: Rehearsed, topology: str, mesh: Any, chip: Chip | None) -> Estimate:
    """Compiles a program and reads what the compiler says. Takes minutes for large networks."""
    lowered = rehearsed.traced.lower()
    base = dict(
        program=rehearsed.name,
        topology=topology,
        mesh=dict(mesh.shape),
        chips=mesh.size,
        examples=rehearsed.examples,
        flops=rehearsed.flops,
        parts=rehearsed.parts,
        memory=chip.hbm if chip else None,
        ideal=rehearsed.flops / mesh.size / chip.peak if chip else None,
        float32=float32_products(rehearsed.traced.jaxpr) if rehearsed.bfloat16 else (0.0, ()),
    )
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        kept = sum(rehearsed.parts.values())
        used = memory_needed(str(error), kept)
        if used is None:
            raise
        made = Estimate(
            temporaries=max(used - kept, 0), peak=used, fits=False, bytes_accessed=0.0,
            collectives={}, largest_gather=0, seconds=None, utilisation=None, days=None,
            not_donated=0, costliest=(), **base,
        )  # fmt: skip
        return dataclasses.replace(made, advice=advice(made, rehearsed))
    program = read_program(compiled.as_text())
    memory = compiled.memory_analysis()
    temporaries = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    outside = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + outside + temporaries
    seconds = _seconds(program, chip)
    state = sum(rehearsed.parts.get(part, 0) for part in ("params", "ema", "optimizer", "profiles"))
    costs = compiled.cost_analysis() or {}
    made = Estimate(
        temporaries=temporaries,
        peak=peak,
        fits=peak <= chip.hbm if chip else None,
        bytes_accessed=float(costs.get("bytes accessed", 0.0)),
        collectives=_by_kind(program),
        largest_gather=max(
            (c.size for c in program.collectives if c.kind == "all-gather"), default=0
        ),
        seconds=seconds,
        utilisation=tuple(base["ideal"] / s for s in seconds) if seconds else None,
        days=_days(seconds, rehearsed.steps),
        not_donated=max(state - memory.alias_size_in_bytes, 0) if rehearsed.steps else 0,
        costliest=tuple(
            (o.name, o.op_name, o.cycles / chip.clock if chip else 0.0)
            for o in program.operations[:SHOWN]
        ),
        **base,
    )
    return dataclasses.replace(made, advice=advice(made, rehearsed))


def memory_needed(message: str, kept: int) -> int | None:
    """Bytes of one chip that a compiler's error names, `kept` being what lies there anyway; None
    for an error of another kind."""
    for pattern, more in ((NEEDED, 0), (TEMPORARIES, kept)):
        if found := pattern.search(message):
            return int(float(found.group(1)) * UNITS[found.group(2).upper()]) + more
    return None


def _seconds(program: Program, chip: Chip | None) -> tuple[float, float] | None:
    if chip is None or program.cycles == 0:
        return None
    computing = program.cycles / chip.clock
    moving = sum(c.moved for c in program.collectives) / (chip.links / 2)
    return max(computing, moving), computing + moving


def _days(seconds: tuple[float, float] | None, steps: int) -> tuple[float, float] | None:
    return tuple(s * steps / 86_400 for s in seconds) if seconds and steps else None


def _by_kind(program: Program) -> dict[str, tuple[int, int, float, float]]:
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0, 0.0])
    for each in program.collectives:
        hidden = each.moved if each.overlapped else 0.0
        for i, value in enumerate((each.times, each.times * each.size, each.moved, hidden)):
            found[each.kind][i] += value
    return {kind: tuple(values) for kind, values in sorted(found.items())}


def float32_products(jaxpr: Any) -> tuple[float, tuple[str, ...]]:
    """Share of the FLOPs of matrix products and convolutions whose factors are both float32, and
    the names of the functions that have them."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    _count(jaxpr, 1.0, found)
    total = sum(all_of for all_of, _ in found.values())
    wide = {name: part for name, (_, part) in found.items() if part}
    names = tuple(sorted(wide, key=lambda name: -wide[name]))
    return (sum(wide.values()) / total if total else 0.0), names[:SHOWN]


def _count(jaxpr: Any, times: float, found: dict) -> None:
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name in PRODUCTS:
            factors = [variable.aval for variable in equation.invars[:2]]
            flops = times * product_flops(equation)
            each = found[_place_of(equation)]
            each[0] += flops
            each[1] += flops * all(factor.dtype == "float32" for factor in factors)
        trips = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(getattr(inner, "jaxpr", inner), "eqns"):
                    _count(inner, times * trips, found)


def _place_of(equation: Any) -> str:
    """The functions of this package that made an equation, the innermost first."""
    traceback, names = equation.source_info.traceback, []
    for frame in traceback.frames if traceback else ():
        file = Path(frame.file_name)
        if "sphere_jax" in file.parts[:-1]:
            names.append(f"{file.stem}.{frame.function_name.rpartition('.')[2]}")
    return " < ".join(names[:3]) or "elsewhere"


def advice(found: Estimate, rehearsed: Rehearsed) -> tuple[str, ...]:
    """What to change, in sentences."""
    said, stage = [], rehearsed.name.removeprefix("train ")
    training = rehearsed.steps > 0
    parts = found.parts
    if found.fits is False:
        kept = sum(parts.values())
        if kept > (found.memory or 0) / 2 and found.mesh["fsdp"] == 1:
            said.append("the state takes more than half of the memory: raise config.mesh.fsdp")
        said.append(
            f"does not fit: compute {stage} in micro-batches (config.{stage}.most_per_device), "
            "recompute whole blocks (remat='blocks'), or take more chips"
            if training
            else "does not fit: lower config.sampler.batch_size"
        )
    gathered = found.collectives.get("all-gather", (0, 0))[1]
    once = found.chips * max(parts.get("params", 0), 1) * rehearsed.micro_batches
    if training and gathered > 8 * once:
        said.append(
            f"gathers {in_bytes(gathered)} a step, over 8 times the parameters in float32: "
            "activations of the whole batch are moved"
        )
    if training and found.examples // found.chips < 4:
        said.append(
            f"{found.examples / found.chips:.3g} images a chip leave the units idle and the update "
            "dominates: fewer chips, or a larger batch"
        )
    if found.float32[0] > 0.05:
        said.append(f"{found.float32[0]:.0%} of the products are float32: see their names")
    if found.not_donated > 2**20:
        said.append(f"{in_bytes(found.not_donated)} of the state are not written in place")
    used = found.peak / found.memory if found.memory and found.fits else 1.0
    if training and used < 0.4:
        said.append(
            f"{used:.0%} of the memory are used: recompute less (remat='products' or 'none')"
        )
    return tuple(said)
