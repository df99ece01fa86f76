"""Scores of one run along values of its sampler: the U-curve of the decode radius, say."""

import dataclasses
import json
import math
from collections.abc import Callable

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import log
from sphere_jax.config.options import RAW_PATHS, Config
from sphere_jax.data.memory import check_fits
from sphere_jax.evaluation import figures
from sphere_jax.evaluation.protocol import protocol
from sphere_jax.evaluation.score import Score
from sphere_jax.evaluation.score_tables import describe
from sphere_jax.methods.latents import latent_bytes
from sphere_jax.runs.building import build_sampler
from sphere_jax.runs.drawing import Drawer, Samples, balanced_labels
from sphere_jax.runs.image_data import image_data
from sphere_jax.runs.reference import reference_of
from sphere_jax.runs.run import Run
from sphere_jax.runs.scoring import generation_of, score_images
from sphere_jax.sampling import FewSteps, Sampler


def sweep(
    run: Run,
    points: list[tuple[dict[str, str], Config]],
    count: int,
    seed: int,
    before: dict | None = None,
    keep: Callable[[dict], None] = lambda swept: None,
) -> dict:
    """What `--out` holds: `rows` with values, NFE, metrics and protocol, their `yardstick`, and
    which `weights` were scored.

    points: `cli.sweep_configs`. Latents are drawn once where only the decode radius changes, and
    one compiled program serves all guidance scales but 1. `keep` gets what is there after every
    point; points that `before`, what an earlier sweep kept, has under the same protocol are not
    drawn again. Raises UserError as `draw` does, and for a `before` of another run or protocol.
    """
    space = run.config.space
    if "decode_radius" in points[0][0] and (space.path in RAW_PATHS or space.sphere != "token"):
        raise UserError(
            "decode_radius can be swept where tokens have one radius, on token spheres."
        )
    drawer = Drawer(run, seed)
    if not drawer.method.has_images:
        raise UserError("This run has latents only and no decoder; nothing to score here.")
    reference = reference_of(run)
    labels = balanced_labels(count, run.config.data.num_classes)
    neighbours, source = run.config.evaluation.neighbours, image_data(run.config).source

    def stamp(sampler):
        made = generation_of(run, Samples(None, None, labels, {}, sampler), seed)
        scored = Score({}, {}, None, len(labels))
        return protocol(reference, source, scored, neighbours, made)

    groups = _alike(points)
    ordered = [(values, sampler) for group in groups.values() for values, sampler in group]
    stamps = {_named(values): stamp(sampler) for values, sampler in ordered}
    swept = {"rows": [], "yardstick": {}, "weights": _weights(run)}
    known = {}
    if before is not None:
        known, yardstick = _known(before, swept["weights"], stamps)
        swept |= {"rows": _rows(known, stamps), "yardstick": yardstick}
        log(f"{len(known)} of {len(ordered)} points were scored before.")
    for values, samples in _drawn(drawer, groups, labels, known):
        scored = score_images(reference, samples.images, labels, neighbours)
        name, nfe = _named(values), samples.sampler.evaluations
        row = {"values": values, "nfe": nfe, "metrics": scored.metrics, "protocol": stamps[name]}
        known[name] = row
        swept |= {"rows": _rows(known, stamps), "yardstick": scored.yardstick}
        shown = ", ".join(f"{key} {value:.4g}" for key, value in scored.metrics.items())
        log(f"{name}, NFE {nfe}: {shown}")
        keep(swept)
    return swept


def _alike(points) -> dict[Sampler | FewSteps, list]:
    """`(values, sampler)` of every point, by what draws their latents: all decode radii share."""
    groups: dict[Sampler | FewSteps, list] = {}
    for values, config in points:
        sampler = build_sampler(config)
        path = sampler
        if "decode_radius" in values:
            path = dataclasses.replace(sampler, decode_radius=0.0)
        groups.setdefault(path, []).append((values, sampler))
    return groups


def _drawn(drawer: Drawer, groups, labels, known):
    """`(values, Samples)` of every point that is not known yet."""
    for path, group in groups.items():
        left = [(values, sampler) for values, sampler in group if _named(values) not in known]
        if left and "decode_radius" not in left[0][0]:
            for values, sampler in left:
                yield values, drawer.draw(labels, sampler)
        elif left:
            needed = len(labels) * latent_bytes(drawer.method.tokenizer)
            mend = "ask for less with --num, or for one radius at a time with --decode_radius"
            check_fits("What all radii decode, the latents,", needed, mend)
            drawn = drawer.draw(labels, path, decode=False)
            for values, sampler in left:
                images = drawer.decode(drawn.latents, sampler.decode_radius)
                yield values, Samples(images, None, labels, drawn.trace, sampler)


def _named(values: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _rows(known: dict[str, dict], stamps) -> list[dict]:
    """In the order of the sweep, however they came to be known."""
    return [known[name] for name in stamps if name in known]


def _weights(run: Run) -> dict[str, str]:
    """What was trained, by the records of its stages, and what stands for it."""
    files = {name: run.workdir / "stages" / f"{name}.json" for name in run.config.stages}
    found = {name: fingerprints.of_file(file) for name, file in files.items() if file.exists()}
    return found | ({"taken": run.taken} if run.taken else {})


def _known(before: dict, weights: dict[str, str], stamps: dict[str, dict]):
    """The rows of an earlier sweep, by name, and its yardstick.

    Raises UserError if they were drawn from other weights or under another protocol, or are not all
    asked for again: they would be lost.
    """
    try:
        found = {_named(row["values"]): row for row in before["rows"]}
        left_out = [name for name in found if name not in stamps]
        found = {name: found[name] for name in stamps if name in found}
        same = before["weights"] == weights and all(
            row["protocol"] == json.loads(json.dumps(stamps[name])) for name, row in found.items()
        )
        rows = {n: row | {"metrics": _numbers(row["metrics"])} for n, row in found.items()}
        yardstick = _numbers(before["yardstick"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError("--out is a file that holds no sweep; give another.") from error
    if left_out:
        raise UserError(
            f"--out holds a sweep with {left_out[0]}, which would be lost; sweep over that value "
            "too, or give another file."
        )
    if not same:
        raise UserError(
            "--out holds a sweep of other weights or under another protocol (number, seed, "
            "features, versions, device); give another file."
        )
    return rows, yardstick


def _numbers(scores: dict[str, float | None]) -> dict[str, float]:
    """JSON stores NaN as null."""
    return {name: math.nan if value is None else value for name, value in scores.items()}


def table(swept: dict) -> str:
    """Markdown: one row a point, and the score of real images."""
    names, keys = list(swept["yardstick"]), list(swept["rows"][0]["values"])
    lines = [[*keys, "NFE", *(describe(name)[0] for name in names)]]
    lines.append(["---"] * len(lines[0]))
    for row in swept["rows"]:
        found = [row["metrics"].get(name) for name in names]  # one added since has holes
        scores = ["–" if value is None else f"{value:.3f}" for value in found]
        lines.append([*row["values"].values(), str(row["nfe"]), *scores])
    yardstick = [f"{swept['yardstick'][name]:.3f}" for name in names]
    lines.append(["*yardstick*", *[""] * len(keys), *yardstick])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def curves(swept: dict) -> bytes:
    """PNG: every score along the sweep that was named first, one line for the others' values."""
    xlabel, *_ = swept["rows"][0]["values"]
    lines: dict[str, list[dict]] = {}
    for row in swept["rows"]:
        others = {key: value for key, value in row["values"].items() if key != xlabel}
        name = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in others.items())
        lines.setdefault(name, []).append(row)
    number = str if xlabel == "solver" else float
    at = {
        name: {number(row["values"][xlabel]): row["metrics"] for row in rows}
        for name, rows in lines.items()
    }
    x = list(dict.fromkeys(value for rows in at.values() for value in rows))
    x = x if number is str else sorted(x)
    scores = {  # a sweep that goes on has holes
        name: {key: [rows.get(v, {}).get(key, math.nan) for v in x] for key in swept["yardstick"]}
        for name, rows in at.items()
    }
    return figures.score_curves(xlabel.replace("_", " "), x, scores, swept["yardstick"])
