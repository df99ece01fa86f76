"""`report.html` of a run: samples, scores, stages, and the command that repeats it."""

import json
import shlex

import numpy as np

from sphere_jax.common.files import write_bytes, write_json, write_npz
from sphere_jax.config.reading import to_dict
from sphere_jax.evaluation import figures, page, score_tables
from sphere_jax.evaluation.score import Score
from sphere_jax.runs.drawing import Samples
from sphere_jax.runs.run import Run
from sphere_jax.training.run_log import read_rows, say_lost

FIRST_SAMPLES = "first.npz"  # the first images, as they are
FIRST_COUNT = 16
HEADLINES = 4  # scores at the top of the page; the Fréchet distance is the first


def write_files(
    run: Run, samples: Samples, scored: Score | None, stamp, results, others, path
) -> None:
    """`samples/final.png` (or `.npz`), `report.html`, `results.json`. `path`: `Drawer.path`."""
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
    along = [_path(samples, path)] if path else []
    along += [_radius(run, samples)] if "radius" in samples.trace else []
    if along:
        sections.append(page.Section("Sampling path", along))
    rows = _rows(run)
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
    # Last: it marks the run as finished.
    write_json(workdir / "results.json", results, sealed=True)


def write_stages(run: Run, results: dict) -> None:
    """`report.html` and `results.json` of a run that does not generate."""
    config, workdir = run.config, run.workdir
    rows = _rows(run)
    sections = [*_stage_sections(run), *_loss_section(rows), _reproduce_section(run)]
    summary = f"{', '.join(config.stages)} on {config.data.source}, seed {config.seed}."
    page.write_report(workdir / "report.html", f"{workdir.name}", summary, [], sections)
    write_json(workdir / "results.json", results, sealed=True)


def _rows(run: Run) -> list[dict]:
    """Of its log; a line says where some are lost."""
    path = run.workdir / "metrics.jsonl"
    rows = read_rows(path)
    for name in run.config.stages:
        say_lost(path, rows, name, run.config.stage(name).steps)
    return rows


def _loss_section(rows: list[dict]) -> list[page.Section]:
    """Curves of the stages with two points or more; of the others, the number."""
    captions = {
        "loss": "Training loss, one panel a stage.",
        "heldout_loss": "Held-out loss of the EMA weights.",
        "discriminator": "Loss of the discriminator.",
        "adversarial": "What the decoder is told by it.",
    }
    blocks, single = [], []
    for key, caption in captions.items():
        points = figures.points_by_stage(rows, key)  # none where metrics.jsonl is lost
        curves = {stage: found for stage, found in points.items() if len(found) > 1}
        if curves:
            blocks.append(page.Picture(figures.loss_curves(curves, key), caption))
        single += [
            [stage, key.replace("_", " "), *points[stage][0]] for stage in points.keys() - curves
        ]
    if single:
        blocks.append(page.Table(["stage", "measured once", "step", ""], sorted(single)))
    return [page.Section("Loss curves", blocks)] if blocks else []


def _reproduce_section(run: Run) -> page.Section:
    """A command for a shell, from the folder where this run was started."""
    flags = f"--config={run.workdir / 'config.json'}", f"--workdir={run.workdir}-again"
    command = shlex.join(["python", "-m", "sphere_jax.main", *flags])
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
    title = "Scores while it trained"
    if len(points) == 1:
        values = [[score_tables.describe(name)[0], points[0].get(name)] for name in names]
        table = page.Table([f"{count:,} samples", f"step {steps[0]:,}"], values)
        return [page.Section(title, [table])]
    same = scored is not None and scored.samples == count  # else perhaps with other features
    real = {name: scored.real_data.get(name) if same else None for name in names}
    lines = {"": {name: [_finite(point.get(name)) for point in points] for name in names}}
    drawn = figures.score_curves("step", steps, lines, real)
    caption = f"Scores of {count:,} samples by the weights of these steps, always in the same noise"
    caption += "; dashed, those of real images." if any(real.values()) else "."
    return [page.Section(title, [page.Picture(drawn, caption)])]


def _finite(value) -> float | None:
    """Of a row, in which numbers that are not finite are strings."""
    return value if isinstance(value, (int, float)) else None


NOT_SCORES = ("stage", "step", "images_trained", "training_seconds")


def curve_rows(rows: list[dict], stage: str) -> list[dict]:
    """Of the rows of `metrics.jsonl`, those that `Scorer.point_of_curve` wrote, in order."""
    found = [row for row in rows if row["stage"] == stage and "images_trained" in row]
    return sorted(found, key=lambda row: row["step"])


def _path(samples: Samples, path: dict[int, np.ndarray]) -> page.Picture:
    """The first samples while they are drawn, one row a step."""
    steps = samples.sampler.steps
    rows = {f"step {step} of {steps}": images for step, images in path.items()}
    caption = "The first samples, one a column, decoded as the sampler passes through them."
    return page.Picture(figures.labelled_rows(rows), caption)


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
