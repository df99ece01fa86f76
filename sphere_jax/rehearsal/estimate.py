"""What a compiled program needs and costs on a pod, from the compiler's text and a stated model.

The compiler estimates the cycles of every instruction but not the time of transfers between chips.
These are added: in a ring, each chip sends (n-1)/n of a gathered or scattered array and twice that
of a reduced one, at half the published bandwidth of its links (one direction). Two times follow:
transfers wholly hidden behind the arithmetic, and not at all. Nor does it estimate kernels that are
not its own (splash attention): their products are taken to reach a third of the peak.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

from sphere_jax.common.temporary import temporary_folder
from sphere_jax.rehearsal.chips import Chip
from sphere_jax.rehearsal.compiled_text import Program, read_program
from sphere_jax.rehearsal.programs import BESIDE, Rehearsed
from sphere_jax.rehearsal.recomputing import WEAKER
from sphere_jax.training.flops import PRODUCTS, product_flops

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SHOWN = 10  # operations
KERNELS = 1 / 3  # of the peak: a guess of what splash attention reaches with heads of 64 or 72
# In the compiler's error: all that a program needs, or its temporaries alone.
NEEDED = re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", re.IGNORECASE)
TEMPORARIES = re.compile(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one program on one mesh, ready for JSON. What has a default may not be known.

    Bytes are of one chip. parts: what lies in memory before and after it, by kind. temporaries:
    while it runs. memory: that programs may use; None where the chip is not known, and then fits is
    None, too. sent: to other chips; meanwhile: those of them that are sent while other instructions
    run. collectives: the same by kind: (count, bytes of the arrays, sent, meanwhile).
    largest_gather: bytes of the largest array that is gathered at once. seconds: (transfers
    hidden, not hidden) of one run; None without the compiler's estimate. utilisation: of the
    chips' bfloat16 peak, for the same two. steps: how often a whole run runs it; 0 if that is not
    fixed. float32: share of the FLOPs of products whose factors are float32 where bfloat16 is
    meant, and where they are. not_donated: bytes of the state that the program does not write in
    place. recomputing: key and value of the option, and the bytes that the next weaker value would
    store besides, at most; () if the stage has no such option.
    """

    program: str
    topology: str
    mesh: dict[str, int]
    chips: int
    examples: int
    peak: int
    memory: float | None
    fits: bool | None
    ideal: float | None
    seconds: tuple[float, float] | None
    utilisation: tuple[float, float] | None
    days: tuple[float, float] | None
    sent: float
    meanwhile: float
    steps: int
    micro_batches: int
    recomputing: tuple[str, str, int] | tuple[()]
    flops: float = 0.0
    parts: dict[str, int] = dataclasses.field(default_factory=dict)
    temporaries: int = 0
    collectives: dict[str, tuple[int, int, float, float]] = dataclasses.field(default_factory=dict)
    largest_gather: int = 0
    float32: tuple[float, tuple[str, ...]] = (0.0, ())
    not_donated: int = 0
    costliest: tuple[tuple[str, str, float], ...] = ()


def estimate(rehearsed: Rehearsed, topology: str, mesh: Any, chip: Chip | None) -> Estimate:
    """Compiles a program and reads what the compiler says. Takes minutes for large networks."""
    lowered = rehearsed.traced.lower()
    key, policy, more = rehearsed.recomputing
    groups = mesh.size // mesh.shape.get("tensor", 1)  # that the batch is split over in layers
    base = dict(
        program=rehearsed.name,
        topology=topology,
        mesh=dict(mesh.shape),
        chips=mesh.size,
        examples=rehearsed.examples,
        flops=rehearsed.flops,
        parts=rehearsed.parts,
        memory=chip.memory if chip else None,
        ideal=rehearsed.flops / mesh.size / chip.peak if chip else None,
        steps=rehearsed.steps,
        micro_batches=rehearsed.micro_batches,
        recomputing=(key, policy, more // groups + _gathered(rehearsed, policy, mesh))
        if key
        else (),
        float32=float32_products(rehearsed.traced.jaxpr) if rehearsed.bfloat16 else (0.0, ()),
    )
    kept, beside = sum(rehearsed.parts.values()), rehearsed.parts.get(BESIDE, 0)
    try:
        compiled, text = compile_for(chip is not None, lowered)
    except jax.errors.JaxRuntimeError as error:
        used = memory_needed(str(error), kept - beside)
        if used is None:
            raise
        return Estimate(
            peak=used + beside, fits=False, temporaries=max(used + beside - kept, 0), seconds=None,
            utilisation=None, days=None, sent=0.0, meanwhile=0.0, **base,
        )  # fmt: skip
    program = read_program(text)
    memory = compiled.memory_analysis()
    temporaries = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    outside = memory.output_size_in_bytes - memory.alias_size_in_bytes
    # What a program does not read lies in memory all the same.
    peak = max(memory.argument_size_in_bytes + beside, kept) + outside + temporaries
    kernels = kernel_flops(rehearsed.traced.jaxpr)
    seconds, collectives = _seconds(program, kernels, chip), _by_kind(program)
    state = sum(rehearsed.parts.get(part, 0) for part in ("params", "ema", "optimizer", "profiles"))
    sent, meanwhile = (sum(each[i] for each in collectives.values()) for i in (2, 3))
    return Estimate(
        temporaries=temporaries,
        peak=peak,
        fits=peak <= chip.memory if chip else None,
        collectives=collectives,
        sent=sent,
        meanwhile=meanwhile,
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


def compile_for(tpu: bool, lowered: Any) -> tuple[Any, str]:
    """The program and its text: as JAX gives it, or as libtpu writes it, where jaxlib cannot read
    the program back. That is so on v6e for steps with a transfer that one iteration of a loop
    starts and another one ends."""
    with temporary_folder() as folder:
        dumped = {"xla_dump_to": str(folder), "xla_dump_hlo_as_text": True}
        compiled = lowered.compile(compiler_options=dumped if tpu else None)
        try:
            return compiled, compiled.as_text()
        except jax.errors.JaxRuntimeError:
            written = [*folder.glob("*.after_codegen.txt")]
            if len(written) != 1:
                raise
            return compiled, written[0].read_text()


def _gathered(rehearsed: Rehearsed, policy: str, mesh: Any) -> int:
    """Bytes of the gathered weights of all layers, at most, which wait for the backward pass where
    nothing is recomputed (`nn/transformer_layers.Stack`)."""
    waits = WEAKER.get(policy) == "none" and mesh.size > 1
    return mesh.size * rehearsed.parts.get("params", 0) if waits else 0


def memory_needed(message: str, kept: int) -> int | None:
    """Bytes of one chip that a compiler's error names, `kept` being what lies there anyway; None
    for an error of another kind."""
    for pattern, more in ((NEEDED, 0), (TEMPORARIES, kept)):
        if found := pattern.search(message):
            return int(float(found.group(1)) * UNITS[found.group(2).upper()]) + more
    return None


def _seconds(program: Program, kernels: float, chip: Chip | None) -> tuple[float, float] | None:
    if chip is None or program.cycles == 0:
        return None
    computing = program.cycles / chip.clock + kernels / (KERNELS * chip.peak)
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
    for equation, flops, in_kernel in _products(jaxpr):
        if in_kernel:  # whose factors are its own affair
            continue
        each = found[_place_of(equation)]
        each[0] += flops
        each[1] += flops * all(factor.aval.dtype == "float32" for factor in equation.invars[:2])
    total = sum(all_of for all_of, _ in found.values())
    wide = {name: part for name, (_, part) in found.items() if part}
    names = tuple(sorted(wide, key=lambda name: -wide[name]))
    return (sum(wide.values()) / total if total else 0.0), names[:SHOWN]


def kernel_flops(jaxpr: Any) -> float:
    """FLOPs of the products in Pallas kernels on one device. The compiler estimates no cycles of
    these. Every cell of a kernel's grid counts."""
    return sum(flops for _, flops, in_kernel in _products(jaxpr) if in_kernel)


def _products(jaxpr: Any, times: float = 1.0, in_kernel: bool = False) -> Iterator[tuple]:
    """(equation, FLOPs of all its runs, whether a kernel has it) of every product."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params, runs, inside = equation.primitive.name, equation.params, times, in_kernel
        if name in PRODUCTS:
            yield equation, times * product_flops(equation), in_kernel
        elif name == "scan":
            runs *= params["length"]
        elif name == "pallas_call":
            runs, inside = runs * math.prod(params["grid_mapping"].grid), True
        for inner in jaxprs_in_params(params):
            yield from _products(inner, runs, inside)


def _place_of(equation: Any) -> str:
    """The functions of this package that made an equation, the innermost first."""
    traceback, names = equation.source_info.traceback, []
    for frame in traceback.frames if traceback else ():
        file = Path(frame.file_name)
        if "sphere_jax" in file.parts[:-1]:
            names.append(f"{file.stem}.{frame.function_name.rpartition('.')[2]}")
    return " < ".join(names[:3]) or "elsewhere"
