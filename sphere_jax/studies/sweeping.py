"""Scores of one run over values of sampler options, for example over the decode radius."""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError, shortened
from sphere_jax.common.progress import log
from sphere_jax.config.config_files import apply_override, parse_value
from sphere_jax.config.options import Config
from sphere_jax.config.reading import read_config, to_dict
from sphere_jax.data.memory import check_fits
from sphere_jax.evaluation import figures
from sphere_jax.evaluation.protocol import protocol, with_current_keys
from sphere_jax.evaluation.score_tables import describe, remark_of
from sphere_jax.methods.on_latents import latent_bytes
from sphere_jax.runs.drawing import Drawer, Samples, balanced_labels, check_count
from sphere_jax.runs.labels import BALANCED
from sphere_jax.runs.reference import reference_of
from sphere_jax.runs.run import Run
from sphere_jax.runs.scoring import generation_of, score_images

Point = tuple[dict[str, str], Config]  # values of the swept options, as given; the whole config


def sweep_configs(config: Config, sweeps: list[str]) -> list[Point]:
    """Every combination of `KEY=VALUE,VALUE,...` of the sampler's options that may be swept. Where
    the guidance scale is 1, which is off, there is no auto-guidance.

    Raises UserError for what cannot be swept and for values that the config refuses.
    """
    named, combinations = _swept(sweeps), []
    options = dataclasses.fields(config.sampler)
    known = [option.name for option in options if option.metadata.get("swept")]
    for key in named:
        if key not in known:
            raise UserError(
                f"--sweep={shortened(key)}=... cannot be swept; give {', '.join(known)}."
            )
    for values in itertools.product(*named.values()):
        raw = to_dict(config)
        for key, value in zip(named, values, strict=True):
            apply_override(raw, f"--config.sampler.{key}={value}")
        if raw["sampler"]["guidance"] == 1.0 and config.sampler.weaker_run:
            raw["sampler"]["auto_guidance"] = ""
        combinations.append((dict(zip(named, values, strict=True)), read_config(raw)))
    return combinations


def swept_guidance(sweeps: list[str]) -> float:
    """The first swept guidance scale that guides, or 1. Raises UserError as `sweep_configs`."""
    values = _swept(sweeps).get("guidance", ())
    return next((s for v in values if (s := parse_value("--sweep=guidance", v, float)) != 1.0), 1.0)


def _swept(sweeps: list[str]) -> dict[str, list[str]]:
    """{KEY: [VALUE, ...]} of `KEY=VALUE,VALUE,...`. Raises UserError for another form."""
    named = {}
    for text in sweeps:
        key, equals, values = text.partition("=")
        if not equals or not values or key in named:
            raise UserError(
                f"--sweep={shortened(text)} must be KEY=VALUE,VALUE,..., and each KEY once."
            )
        named[key] = [value.strip() for value in values.split(",")]
    return named


def sweep(
    run: Run,
    points: list[Point],
    count: int,
    seed: int,
    before: dict | None = None,
    write: Callable[[dict], None] = lambda swept: None,
) -> dict:
    """What `--out` holds: `rows` with values, NFE, metrics and protocol, the scores of `real_data`,
    and which `weights` were scored.

    points: `sweep_configs`. Latents are drawn once where only the decode radius changes, and one
    compiled program serves all guidance scales but 1. `write` gets the results so far after every
    point; points in `before`, the output of an earlier sweep under the same protocol, are not drawn
    again. Raises UserError as `draw` does, and for a `before` of another run or protocol.
    """
    drawer = Drawer(run, seed)
    if not drawer.method.has_images:
        raise UserError("This run has latents only and no decoder; nothing to score here.")
    reference = reference_of(run)
    check_count(run, count)
    labels = balanced_labels(count, run.config.data.num_classes)
    neighbours = run.config.evaluation.neighbours
    source = run.config.source.images_behind(run.config).source

    def stamp(sampler) -> dict:
        made = generation_of(run, sampler, seed)
        return protocol(reference, source, len(labels), neighbours, made)

    groups = _alike(run, points)
    ordered = [(values, sampler) for group in groups.values() for values, sampler in group]
    stamps = {_named(values): stamp(sampler) for values, sampler in ordered}
    swept = {"rows": [], "real_data": {}, "weights": _weights(run)}
    known = {}
    if before is not None:
        defaults = _defaults(drawer.method.sampler)
        known, real = _known(with_current_keys(before), swept["weights"], stamps, defaults)
        swept |= {"rows": _rows(known, stamps), "real_data": real}
        log(f"{len(known)} of {len(ordered)} points were scored before.")
    for values, samples in _drawn(drawer, groups, labels, known):
        scored = score_images(reference, samples.images, labels, neighbours)
        name, nfe = _named(values), samples.evaluations
        row = {"values": values, "nfe": nfe, "metrics": scored.metrics, "protocol": stamps[name]}
        known[name] = row
        swept |= {"rows": _rows(known, stamps), "real_data": scored.real_data}
        shown = ", ".join(f"{key} {value:.4g}" for key, value in scored.metrics.items())
        log(f"{name}, NFE {nfe}: {shown}")
        write(swept)
    return swept


def _alike(run: Run, points: list[Point]) -> dict[Any, list]:
    """`(values, sampler)` of every point, by what draws their latents: all decode radii share."""
    groups: dict[Any, list] = {}
    for values, config in points:
        sampler = run.system.sampler(config)
        path = sampler
        if "decode_radius" in values:
            path = dataclasses.replace(sampler, decode_radius=0.0)
        groups.setdefault(path, []).append((values, sampler))
    return groups


def _drawn(drawer: Drawer, groups, labels, known) -> Iterator[tuple[dict[str, str], Samples]]:
    """`(values, Samples)` of every point that is not known yet."""
    for path, group in groups.items():
        left = [(values, sampler) for values, sampler in group if _named(values) not in known]
        if left and "decode_radius" not in left[0][0]:
            for values, sampler in left:
                yield values, drawer.draw(labels, sampler)
        elif left:
            needed = len(labels) * latent_bytes(drawer.method.tokenizer)
            fix = "give a smaller --num, or one radius at a time by --decode_radius"
            check_fits("The latents that all radii decode", needed, fix)
            drawn = drawer.draw(labels, path, decode=False)
            for values, sampler in left:
                images = drawer.decode(drawn.latents, sampler.decode_radius)
                yield values, dataclasses.replace(drawn, drawn=images, sampler=sampler)


def _named(values: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _rows(known: dict[str, dict], stamps) -> list[dict]:
    """In the order of the sweep."""
    return [known[name] for name in stamps if name in known]


def _weights(run: Run) -> dict[str, str]:
    """Fingerprints of the records of its stages, and of weights used instead."""
    files = {name: run.workdir / "stages" / f"{name}.json" for name in run.config.stages}
    found = {name: fingerprints.of_file(file) for name, file in files.items() if file.exists()}
    return found | ({"override": run.override} if run.override else {})


def _defaults(sampler: Any) -> dict[str, Any]:
    """Of its settings, as a protocol holds them."""
    fields = dataclasses.fields(sampler)
    none = (dataclasses.MISSING, dataclasses.MISSING)
    needed = [f.name for f in fields if (f.default, f.default_factory) == none]
    return dataclasses.asdict(type(sampler)(**{name: getattr(sampler, name) for name in needed}))


def _completed(protocol: dict, defaults: dict[str, Any]) -> dict:
    """With the settings that are newer than this protocol, at their defaults."""
    stored = protocol["generation"]
    generation = {"labels": BALANCED} | defaults | stored
    for name, value in defaults.items():
        if isinstance(value, dict):
            generation[name] = value | stored.get(name, {})
    return protocol | {"generation": generation}


def _known(before: dict, weights: dict[str, str], stamps: dict[str, dict], defaults: dict):
    """The rows of an earlier sweep, by name, and the scores of real data. `defaults` are those of
    the sampler: settings that are newer than the rows.

    Raises UserError if they were drawn from other weights or under another protocol, or are not all
    in this sweep: they would be lost.
    """
    try:
        found = {_named(row["values"]): row for row in before["rows"]}
        left_out = [name for name in found if name not in stamps]
        found = {name: found[name] for name in stamps if name in found}
        same = before["weights"] == weights and all(
            _completed(row["protocol"], defaults) == json.loads(json.dumps(stamps[name]))
            for name, row in found.items()
        )
        rows = {n: row | {"metrics": _numbers(row["metrics"])} for n, row in found.items()}
        real = _numbers(before["real_data"])
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
    return rows, real


def _numbers(scores: dict[str, float | None]) -> dict[str, float]:
    """JSON stores NaN as null."""
    return {name: math.nan if value is None else value for name, value in scores.items()}


def table(swept: dict) -> str:
    """Markdown: one row a point, and the score of real images."""
    names, keys = list(swept["real_data"]), list(swept["rows"][0]["values"])
    lines = [[*keys, "NFE", *(describe(name)[0] for name in names)]]
    lines.append(["---"] * len(lines[0]))
    for row in swept["rows"]:
        found = [row["metrics"].get(name) for name in names]  # older sweeps may lack a metric
        scores = ["–" if value is None else f"{value:.3f}" for value in found]
        lines.append([*row["values"].values(), str(row["nfe"]), *scores])
    real = [f"{swept['real_data'][name]:.3f}" for name in names]
    lines.append(["*real data*", *[""] * len(keys), *real])
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    remark = remark_of(*(row["protocol"] for row in swept["rows"]))
    return f"{rows}\n\nPrecision and recall: {remark}." if remark else rows


def curves(swept: dict) -> bytes | None:
    """PNG: every score along the sweep that was named first, one line for the others' values. None
    for one value of it, which is no curve."""
    xlabel, *_ = swept["rows"][0]["values"]
    lines: dict[str, list[dict]] = {}
    for row in swept["rows"]:
        others = {key: value for key, value in row["values"].items() if key != xlabel}
        name = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in others.items())
        lines.setdefault(name, []).append(row)
    number = float if all(_is_number(row["values"][xlabel]) for row in swept["rows"]) else str
    at = {
        name: {number(row["values"][xlabel]): row["metrics"] for row in rows}
        for name, rows in lines.items()
    }
    x = list(dict.fromkeys(value for rows in at.values() for value in rows))
    if len(x) < 2:
        return None
    x = x if number is str else sorted(x)
    scores = {  # a sweep that was resumed may have holes
        name: {key: [rows.get(v, {}).get(key, math.nan) for v in x] for key in swept["real_data"]}
        for name, rows in at.items()
    }
    return figures.score_curves(xlabel.replace("_", " "), x, scores, swept["real_data"])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
