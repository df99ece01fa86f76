"""Scores of one run along values of its sampler: the U-curve of the decode radius, say."""

import dataclasses

from sphere_jax.building import build_sampler
from sphere_jax.errors import UserError
from sphere_jax.evaluation import figures
from sphere_jax.evaluation.protocol import protocol
from sphere_jax.evaluation.report import describe
from sphere_jax.experiment import Run
from sphere_jax.generation import Drawer, Samples, balanced_labels
from sphere_jax.options import Config
from sphere_jax.sampling import FewSteps, Sampler
from sphere_jax.scoring import generation_of, reference_of, score_images
from sphere_jax.training.logging import say


def sweep(run: Run, points: list[tuple[dict[str, str], Config]], count: int, seed: int) -> dict:
    """What `--out` holds: `rows` with values, NFE, metrics and protocol, and their `yardstick`.

    points: `cli.sweep_configs`. Latents are drawn once where only the decode radius changes, and
    one compiled program serves all guidance scales but 1. Raises UserError as `draw` does.
    """
    space = run.config.space
    if "decode_radius" in points[0][0] and (space.path == "linear" or space.sphere != "token"):
        raise UserError(
            "decode_radius can be swept where tokens have one radius, on token spheres."
        )
    drawer = Drawer(run, seed)
    if not drawer.method.has_images:
        raise UserError("This run has latents only and no decoder; nothing to score here.")
    reference = reference_of(run)
    labels = balanced_labels(count, run.config.data.num_classes)
    neighbours = run.config.evaluation.neighbours
    rows, yardstick = [], {}
    for values, samples in _drawn(drawer, points, labels):
        scored = score_images(reference, samples.images, labels, neighbours)
        made = generation_of(run, samples, seed)
        stamp = protocol(reference, run.config.data.source, scored, neighbours, made)
        nfe, yardstick = samples.sampler.evaluations, scored.yardstick
        rows.append({"values": values, "nfe": nfe, "metrics": scored.metrics, "protocol": stamp})
        shown = ", ".join(f"{key} {value:.4g}" for key, value in scored.metrics.items())
        say(f"{', '.join(f'{k}={v}' for k, v in values.items())}, NFE {nfe}: {shown}")
    return {"rows": rows, "yardstick": yardstick}


def _drawn(drawer: Drawer, points, labels):
    """`(values, Samples)` of every point, those that differ in the decode radius alone together."""
    alike: dict[Sampler | FewSteps, list] = {}
    for values, config in points:
        sampler = build_sampler(config)
        swept = "decode_radius" in values
        path = dataclasses.replace(sampler, decode_radius=0.0) if swept else sampler
        alike.setdefault(path, []).append((values, sampler))
    for path, members in alike.items():
        if "decode_radius" not in members[0][0]:
            yield members[0][0], drawer.draw(labels, path)
            continue
        drawn = drawer.draw(labels, path, decode=False)
        for values, sampler in members:
            radius = sampler.decode_radius or drawer.method.space.radius
            images = drawer.decode(drawn.latents, radius)
            yield values, Samples(images, None, labels, drawn.trace, sampler)


def table(swept: dict) -> str:
    """Markdown: one row a point, and the score of real images."""
    names, keys = list(swept["yardstick"]), list(swept["rows"][0]["values"])
    lines = [[*keys, "NFE", *(describe(name)[0] for name in names)]]
    lines.append(["---"] * len(lines[0]))
    for row in swept["rows"]:
        scores = [f"{row['metrics'][name]:.3f}" for name in names]
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
    x = [row["values"][xlabel] for row in next(iter(lines.values()))]
    if xlabel != "solver":
        x = [float(value) for value in x]
    scores = {
        name: {key: [row["metrics"][key] for row in rows] for key in swept["yardstick"]}
        for name, rows in lines.items()
    }
    return figures.score_curves(xlabel.replace("_", " "), x, scores, swept["yardstick"])
