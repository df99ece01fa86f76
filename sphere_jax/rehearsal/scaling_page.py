"""An estimate as text, and a page of many."""

from collections.abc import Sequence
from typing import NamedTuple

from sphere_jax.common.files import in_bytes
from sphere_jax.rehearsal.advice import advice
from sphere_jax.rehearsal.chips import CHIPS
from sphere_jax.rehearsal.estimate import Estimate

MADE_WITH = ("commit", "date", "jax", "libtpu")


class Record(NamedTuple):
    """config: with what was overridden. made: by MADE_WITH, "" where it is not known."""

    config: str
    made: dict[str, str]
    found: Estimate


def lines_of(found: Estimate) -> list[str]:
    """For the terminal."""
    axes = ", ".join(f"{axis} {size}" for axis, size in found.mesh.items())
    parts = ", ".join(f"{in_bytes(size)} {part}" for part, size in found.parts.items() if size)
    verdict = {True: ": fits", False: ": DOES NOT FIT", None: ""}
    of = f" of {in_bytes(found.memory)}" if found.memory else ""
    lines = [
        f"{found.program}  ({found.topology}: {axes}; {found.examples} images)",
        f"  memory      {in_bytes(found.peak)}{of} a chip{verdict[found.fits]}",
        f"  kinds       {parts}, {in_bytes(found.temporaries)} temporaries and program",
        f"  work        {found.flops:.3g} FLOP in products",
    ]
    if found.memory is None:
        lines.append("  cost        not known: the CPU compiler estimates no times, nor what fits")
    for kind, (count, size, sent, hidden) in found.collectives.items():
        lines.append(
            f"  {kind:<11} {count:,} x, {in_bytes(size)} in all, {in_bytes(sent)} sent a chip, "
            f"{hidden / max(sent, 1.0):.0%} of it while other instructions run"
        )
    if found.largest_gather:
        lines.append(f"  largest     {in_bytes(found.largest_gather)} gathered at once")
    if found.seconds:
        (low, high), (best, worst) = found.seconds, found.utilisation
        lines.append(
            f"  time        {1e3 * low:.4g} ms with transfers hidden, {1e3 * high:.4g} ms without; "
            f"ideal {1e3 * found.ideal:.4g} ms; {best:.0%} to {worst:.0%} of the peak"
        )
        slow, fast = found.examples / high, found.examples / low
        lines.append(f"  images      {slow:,.0f} to {fast:,.0f} a second")
    if found.days:
        lines.append(f"  all steps   {found.days[0]:.3g} to {found.days[1]:.3g} days")
    share, names = found.float32
    if share:
        lines.append(f"  float32     {share:.1%} of the products: {', '.join(names)}")
    if found.not_donated:
        lines.append(f"  not reused  {in_bytes(found.not_donated)} of the state")
    for name, op_name, seconds in found.costliest:
        lines.append(f"  {1e3 * seconds:8.3f} ms {name}  {op_name[-90:]}")
    return lines + [f"  change      {sentence}" for sentence in advice(found)]


HEADER = (
    "| config | program | pod | mesh | images | GiB a chip | ideal ms | ms | of the peak | sent a "
    "chip | meanwhile | days | commit |"
)

INTRODUCTION = """\
# Scaling

Written by the command below from what the TPU compiler says of the real programs; no TPU has run
them. Every row is of one such command, with the config as it was shipped at that commit but for
what is named. Its numbers are kept in `rehearsals/`; --page alone writes this page of them:

    pip install libtpu
    python -m sphere_jax.rehearse --config=configs/imagenet_slerp.py --topology=v5e:4x4 \\
        --page=docs/scaling.md

**Model.** Arithmetic: the compiler's estimated cycles of every instruction, at the clock of the
chip; of splash attention, which it does not estimate, the products at a third of the peak.
Transfers: each chip sends (n-1)/n of every gathered or scattered array and twice that of a reduced
one, at half the published bandwidth of its links. "ms" has two numbers: with transfers hidden
behind the arithmetic, and without. "ideal" is the FLOPs of the products (forward and backward,
nothing recomputed) at the published peak in bfloat16. Memory is the compiler's own, with what lies
there beside a program: all parameters of a run and, where training scores, its train state. "no
fit": the compiler refuses, or needs more than it leaves to programs. "meanwhile": the part of what
is sent that the compiler sends while other instructions run. Not compiled: previews, held-out
losses, and networks whose weights a config does not name (LPIPS, DINO as an encoder). Of the oldest
rows, whose files name no version of JAX, the rounded numbers alone are kept, so nothing is said of
their float32 products, copies and gathers. What was changed by these numbers, and what they fall
short of: [performance](performance.md#on-a-pod).
"""


def page_of(records: Sequence[Record]) -> str:
    """Markdown."""
    chips = [
        f"| {c.name} | {c.memory / 2**30:.4g} GiB | "
        f"{c.peak / 1e12:.0f} TFLOP/s | {c.bandwidth / 1e9:,.0f} GB/s | "
        f"{c.links / 1e9:.0f} GB/s | {c.clock / 1e9:.2f} GHz |"
        for c in CHIPS.values()
    ]
    records = sorted(records, key=_place)
    said = [
        f"- {config}, {found.program}, {found.topology}: {'; '.join(sentences)}."
        for config, _, found in records
        if (sentences := advice(found))
    ]
    return "\n".join(
        [
            INTRODUCTION,
            "| chip | memory for programs | peak | memory bandwidth | links | clock |",
            "| --- | --- | --- | --- | --- | --- |",
            *chips,
            "",
            HEADER,
            "| --- " * (HEADER.count("|") - 1) + "|",
            *map(_row, records),
            "",
            *_commits(records),
            "",
            "## What to change",
            "",
            *(said or ["Nothing."]),
            "",
        ]
    )


def _commits(records: Sequence[Record]) -> list[str]:
    """When and with what the rows of each commit were made."""
    made = sorted({tuple(record.made.values()) for record in records}, key=lambda one: one[1::-1])
    return [
        f"- {commit or 'no commit'}: {day}, "
        + ", ".join(
            f"{name} {version}" if version else f"{name}'s version was not kept"
            for name, version in (("jax", jax), ("libtpu", libtpu))
        )
        for commit, day, jax, libtpu in made
    ]


def _place(record: Record) -> tuple:
    found = record.found
    return record.config, found.program, found.topology, tuple(found.mesh.items())


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _row(record: Record) -> str:
    config, made, found = record
    mesh = " x ".join(str(size) for size in found.mesh.values())

    def two(values, form=_short) -> str:
        return " to ".join(dict.fromkeys(form(value) for value in values or ()))

    cells = (
        config, found.program, found.topology, mesh, str(found.examples),
        f"{found.peak / 2**30:.1f}" + (" no fit" if found.fits is False else ""),
        _short(1e3 * found.ideal) if found.ideal else "",
        two([1e3 * s for s in found.seconds or ()]),
        two(found.utilisation, "{:.0%}".format), in_bytes(found.sent) if found.sent else "",
        f"{found.meanwhile / found.sent:.0%}" if found.sent else "", two(found.days),
        made["commit"],
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"
