"""`report.html` of a run: samples, scores, stages, and the command that repeats it."""

import json

import numpy as np

from sphere_jax.common.files import write_bytes, write_json, write_npz
from sphere_jax.config.reading import to_dict
from sphere_jax.evaluation import figures, page, score_tables
from sphere_jax.evaluation.score import Score
from sphere_jax.runs.drawing import Samples
from sphere_jax.runs.run import Run
from sphere_jax.training.run_log import read_rows

FIRST_SAMPLES = "first.npz"  # the first images, as they are
FIRST_COUNT = 16
HEADLINES = 4  # scores at the top of the page; the Fréchet distance is the first


def write_files(run: Run, samples: Samples, scored: Score | None, stamp, results, others) -> None:
    """`samples/final.png` (or `.npz`), `report.html`, `results.json`."""
    config, workdir = run.config, run.workdir
    names = run.classes.all_shown
    sections, headlines = [], []

    if samples.images is not None:
        few = slice(0, FIRST_COUNT)
        drawn = {"images": samples.images[few], "labels": samples.labels[few]}
        write_npz(workdir / "samples" / FIRST_SAMPLES, drawn)
        shown = figures.sample_grid(samples.images, samples.labels, names)
        write_bytes(workdir / "samples" / "final.png", shown)
        caption = "Uncurated: the first samples of the seed, one class a row."
        sections.append(page.Section("Samples", [page.Picture(shown, caption)]))
    else:
        drawn = {"latents": samples.latents, "labels": samples.labels}
        write_npz(workdir / "samples" / "final.npz", drawn)
    if scored is not None:
        remark = score_tables.remark_of(stamp)
        blocks = [score_tables.metrics_table(scored, remark)]
        if scored.agreement_by_class is not None:
            blocks.append(score_tables.agreement_table(scored, names))
        sections.append(page.Section("Scores", blocks))
        for key in list(scored.metrics)[:HEADLINES]:
            name, _ = score_tables.describe(key)
            better = score_tables.reading(key, remark)
            note = f"real data: {scored.real_data[key]:.3g}; better: {better}"
            headlines.append(page.Headline(name, f"{scored.metrics[key]:.3g}", note))

    if others:
        sections.append(_steps_section(samples, scored, others, score_tables.remark_of(stamp)))
    if "radius" in samples.trace:
        sections.append(page.Section("Sampling path", [_radius(run, samples)]))
    rows = read_rows(workdir / "metrics.jsonl")
    sections += _curve_section(run, scored, rows)
    sections += [*_stage_sections(run), *_loss_section(rows)]
    if stamp is not None:
        sections.append(page.Section("Protocol", [score_tables.protocol_table(stamp)]))
    sections.append(_reproduce_section(run))

    title = config.method(config.generator).title(config)
    summary = (
        f"{title} on {config.data.source}, seed {results['seed']}: "
        f"{len(samples.labels):,} samples, {samples.sampler}, NFE {samples.evaluations}."
    )
    page.write_report(workdir / "report.html", f"{workdir.name}", summary, headlines, sections)
    write_json(workdir / "results.json", results)  # last: it marks the run as finished


def write_stages(run: Run, results: dict) -> None:
    """`report.html` and `results.json` of a run that does not generate."""
    config, workdir = run.config, run.workdir
    rows = read_rows(workdir / "metrics.jsonl")
    sections = [*_stage_sections(run), *_loss_section(rows), _reproduce_section(run)]
    summary = f"{', '.join(config.stages)} on {config.data.source}, seed {config.seed}."
    page.write_report(workdir / "report.html", f"{workdir.name}", summary, [], sections)
    write_json(workdir / "results.json", results)


def _loss_section(rows: list[dict]) -> list[page.Section]:
    captions = {
        "loss": "Training loss, one panel a stage.",
        "heldout_loss": "Held-out loss of the EMA weights.",
    }
    curves = [
        page.Picture(figures.loss_curves(rows, key), caption)
        for key, caption in captions.items()
        if any(isinstance(row.get(key), float) for row in rows)  # metrics.jsonl may be lost
    ]
    return [page.Section("Loss curves", curves)] if curves else []


def _reproduce_section(run: Run) -> page.Section:
    command = f"python -m sphere_jax.main --config=FILE --workdir={run.workdir.name}"
    settings = json.dumps(to_dict(run.config), indent=1)
    return page.Section("Reproduce", [page.Code(command), page.Code(settings)])


def _steps_section(
    samples: Samples, scored: Score, others: list[dict], remark: str
) -> page.Section:
    """Scores and pictures against the number of sampling steps, at equal seeds."""
    own = {"steps": samples.sampler.steps, "nfe": samples.evaluations,
           "metrics": scored.metrics, "images": samples.images}  # fmt: skip
    rows = sorted([own, *others], key=lambda row: row["steps"])
    names = list(scored.metrics)
    table = page.Table(
        ["steps", "NFE", *(score_tables.describe(name)[0] for name in names)],
        [[row["steps"], row["nfe"], *(row["metrics"][name] for name in names)] for row in rows],
    )
    strips = {f"steps: {row['steps']}": row["images"][:10] for row in rows}
    pictures = figures.labelled_rows(strips)
    blocks = [table, page.Picture(pictures, "The same samples in more steps.")]
    if remark:
        blocks.insert(1, page.Text(f"Precision and recall: {remark}."))
    return page.Section("Steps", blocks)


def _curve_section(run: Run, scored: Score | None, rows: list[dict]) -> list[page.Section]:
    """Scores while it trained, if there are any."""
    points = curve_rows(rows, run.config.generator)
    if not points:
        return []
    names = [name for name in points[0] if name not in NOT_SCORES]
    steps = [point["step"] for point in points]
    count = run.config.evaluation.curve_samples
    same = scored is not None and scored.samples == count  # else perhaps with other features
    real = {name: scored.real_data.get(name) if same else None for name in names}
    lines = {"": {name: [_finite(point.get(name)) for point in points] for name in names}}
    drawn = figures.score_curves("step", steps, lines, real)
    caption = f"Scores of {count:,} samples by the weights of these steps, always in the same noise"
    caption += "; dashed, those of real images." if any(real.values()) else "."
    return [page.Section("Scores while it trained", [page.Picture(drawn, caption)])]


def _finite(value) -> float | None:
    """Of a row, in which numbers that are not finite are strings."""
    return value if isinstance(value, (int, float)) else None


NOT_SCORES = ("stage", "step", "images_trained", "training_seconds")


def curve_rows(rows: list[dict], stage: str) -> list[dict]:
    """Of the rows of `metrics.jsonl`, those that `Scorer.point_of_curve` wrote, in order."""
    found = [row for row in rows if row["stage"] == stage and "images_trained" in row]
    return sorted(found, key=lambda row: row["step"])


def _radius(run: Run, samples: Samples) -> page.Picture:
    drawn = figures.radius_along_path(
        {run.config.space.path: samples.trace["radius"]}, samples.sampler.times()
    )
    drift = float(np.abs(samples.trace["radius"] - 1).max())
    return page.Picture(
        drawn, f"Mean token norm over radius while sampling; largest deviation {drift:.1e}."
    )


def _stage_sections(run: Run) -> list[page.Section]:
    """What each stage measured."""
    found = {
        name: method.report(run.metrics[name], run.arrays[name])
        for name, method in run.methods.items()
    }
    return [page.Section(f"Stage: {name}", blocks) for name, blocks in found.items() if blocks]
