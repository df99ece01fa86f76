"""The tables of docs/probe.md, one column a tokenizer, from the output of `sphere_jax.probe`.

    python -m benchmarks.probe_tables probe/taesd probe/taef1 probe/taef2 --page=docs/probe.md

Prints them; with --page it also writes them between the two comments in that page that mark their
place.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import smoke
from sphere_jax.cli import Parser, run_command
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json, write_text
from sphere_jax.studies.probing.claims import Mean
from sphere_jax.studies.probing.probe_page import MEASURES as PRINTED
from sphere_jax.studies.probing.swap import DIRECTION, RADIUS, WHOLE

BEGIN, END = "<!-- tables: python -m benchmarks.probe_tables -->", "<!-- end of tables -->"
DISTANCES = ("lpips", "semantic")
MEASURES = PRINTED | {"psnr": "PSNR in dB"}
Row = tuple[str, list[str]]  # its name, and a cell for every tokenizer


def table(head: list[str], rows: list[Row]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(found: list[dict]) -> str:
    """Protocol, verdicts and numbers of probes, `found` being their probe.json.

    Raises UserError where the protocols differ in more than the tokenizer.
    """
    first = found[0]["protocol"]
    for other in found[1:]:
        for key in ("data fingerprint", "images", "seed", "LPIPS", "semantic distance"):
            if other["protocol"].get(key) != first.get(key):
                raise UserError(
                    f"These probes differ in '{key}': {first.get(key)!r} and "
                    f"{other['protocol'].get(key)!r}; probe them alike."
                )
    names = [_name(probe["protocol"]["tokenizer"]) for probe in found]
    verdicts = [
        (f"{claim['statement']} | {claim['source']}", [p["claims"][i]["shown"] for p in found])
        for i, claim in enumerate(found[0]["claims"])
    ]
    return "\n\n".join(
        (
            _protocol(found, names),
            table(["claim", "of", *names], verdicts),
            table(["", *names], [*_norms(found), *_swaps(found), *_changes(found)]),
        )
    )


def _name(tokenizer: dict) -> str:
    return tokenizer.get("kind", tokenizer["name"]).upper()


def _protocol(found: list[dict], names: list[str]) -> str:
    about = found[0]["protocol"]
    count = len({json.dumps(p["protocol"].get("device")) for p in found})
    measured = "" if count > 1 or "device" not in about else f", on {about['device']}"
    times = [p["protocol"].get("seconds") for p in found]
    if all(times):
        each = ", ".join(f"{name} {s:,.0f} s" for name, s in zip(names, times, strict=True))
        measured += f"; {each}"
    return (
        f"{about['images']} (fingerprint {about['data fingerprint']}), seed {about['seed']}"
        f"{measured}.\nLPIPS: {about['LPIPS']}.\nSemantic distance: {about['semantic distance']}.\n"
        "± is the standard error over images; single numbers are means."
    )


def _norms(found: list[dict]) -> Iterator[Row]:
    """The shells, and paths between them."""

    def row(name, cell):
        return name, [cell(probe) for probe in found]

    if all("anchors" in probe for probe in found):
        yield row("images with a neighbour to swap with", lambda p: str(p["anchors"]))
    yield row("channels d", lambda p: str(p["protocol"]["latents"][-1]))
    yield row("mean norm of a token", lambda p: f"{p['shells']['data']['radius']:.2f}")
    yield row(
        "/ sqrt(d)",
        lambda p: f"{p['shells']['data']['radius'] / math.sqrt(p['protocol']['latents'][-1]):.2f}",
    )
    yield row(
        "CV of the norm: data; noise",
        lambda p: "; ".join(f"{p['shells'][end]['cv']:.2f}" for end in ("data", "noise")),
    )
    for kind in found[0]["paths"]:
        yield row(
            f"{kind}: mean norm furthest from both shells, sigma",
            lambda p, kind=kind: f"{max(p['paths'][kind]['distance of mean norm']):.2f}",
        )
    for kind in found[0]["paths"]:

        def shares(probe, kind=kind):
            share = probe["paths"][kind]["share"]
            return "; ".join(f"{share[at]:.2f}" for at in (0, len(share) // 2, -1))

        yield row(f"{kind}: radial share at data; midway; noise", shares)


def _swaps(found: list[dict]) -> Iterator[Row]:
    whole = [probe["swap"][WHOLE]["to a"] for probe in found]
    for name in (RADIUS, DIRECTION):
        short = name.split("(")[1].rstrip(")")
        swaps = [probe["swap"][name] for probe in found]
        for measure in _measures(found):
            yield (
                f"{short}, {MEASURES[measure]} to a; to b",
                [f"{_cell(s['to a'], measure)}; {_cell(s['to b'], measure)}" for s in swaps],
            )
        for m in _measures(found, DISTANCES):
            yield (
                f"{short}, {MEASURES[m]} to a over that of a whole swap",
                [_ratio(s["to a"], w, m) for s, w in zip(swaps, whole, strict=True)],
            )
    for m in _measures(found):
        yield f"whole latent swapped, {MEASURES[m]} to a", [_cell(w, m) for w in whole]


def _changes(found: list[dict]) -> Iterator[Row]:
    """Matched perturbation, one norm, noise on the directions; each against the decode of a."""
    measures = _measures(found, ("lpips", "psnr"))
    for m in measures:
        for eta in found[0]["matched"]["radial"]:
            both = [(p["matched"]["radial"][eta], p["matched"]["angular"][eta]) for p in found]
            cells = [
                f"{_value(x, m)}; {_value(y, m)}" + (f"; {_ratio(y, x, m)}" if m == "lpips" else "")
                for x, y in both
            ]
            ratio = "; turned over stretched" if m == "lpips" else ""
            yield f"eta {eta}, {MEASURES[m]}: stretched; turned{ratio}", cells
    distances = _measures(found, DISTANCES) or measures
    title = "; ".join(MEASURES[m] for m in distances)
    for name in found[0]["fixed norm"]:
        cells = ["; ".join(_cell(p["fixed norm"][name], m) for m in distances) for p in found]
        yield f"every norm {name}: {title}", cells
    for number in range(len(found[0]["direction noise"])):
        cells = []
        for probe in found:
            sigma, scores = list(probe["direction noise"].items())[number]
            numbers = "; ".join(_cell(scores, m) for m in distances)
            cells.append(f"{float(sigma):.2g}, {scores['angle']['value']:.0f}°: {numbers}")
        yield f"noise on directions, sigma, mean angle: {title}", cells


def _measures(found: list[dict], among=tuple(MEASURES)) -> list[str]:
    """Those of `among` that every probe has."""
    return [m for m in among if all(m in p["swap"][WHOLE]["to a"] for p in found)]


def _cell(scores: dict, measure: str) -> str:
    return str(Mean(**scores[measure])) if measure in DISTANCES else _value(scores, measure)


def _value(scores: dict, measure: str) -> str:
    digits = {"psnr": 1, "agreement": 2}.get(measure, 4)
    return f"{scores[measure]['value']:.{digits}f}"


def _ratio(scores: dict, over: dict, measure: str) -> str:
    return f"{scores[measure]['value'] / max(over[measure]['value'], 1e-12):.2f}"


def write_into(page: Path, text: str) -> None:
    """Raises UserError if the page does not have the two lines once, in their order."""
    if not page.is_file():
        raise UserError(f"There is no page {page}.")
    content = page.read_text()
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or content.count(BEGIN) + content.count(END) > 2:
        raise UserError(f"{page} must have the lines '{BEGIN}' and '{END}', each once.")
    write_text(page, f"{before}{BEGIN}\n{text}\n{END}{after}")


def smoke_flags() -> list[str]:
    """One probe, of random weights, in two columns."""
    from sphere_jax import probe

    out, page = smoke.folder() / "probe", smoke.folder() / "probe.md"
    with contextlib.redirect_stdout(sys.stderr):
        probe.main([f"--workdir={smoke.trained_run()}", "--num=4", "--batch=4", f"--out={out}"])
    page.write_text(f"{BEGIN}\n{END}\n")
    return [str(out), str(out), f"--page={page}"]


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.splitlines()[0], "Probes must be of the same images, seed and weights.")
    flags.add_argument("probes", nargs="+", type=Path, help="folders, --out of sphere_jax.probe")
    flags.add_argument("--page", type=Path, help="FILE.md to write them into")
    args = smoke.parse(flags, argv, smoke_flags)
    found = []
    for place in args.probes:
        file = place / "probe.json" if place.is_dir() else place
        probe = read_json(file)
        if not isinstance(probe, dict) or not {"claims", "swap", "protocol"} <= probe.keys():
            raise UserError(f"{file} is not what sphere_jax.probe writes.")
        found.append(probe)
    text = tables(found)
    print(text)
    if args.page:
        write_into(args.page, text)


if __name__ == "__main__":
    run_command(main)
