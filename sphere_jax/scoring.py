"""The end of a run: samples, their scores, `report.html` and `results.json`."""

import json
import time

import numpy as np

from sphere_jax.config import to_dict
from sphere_jax.distribution.start import is_main_process
from sphere_jax.errors import UserError
from sphere_jax.evaluation import figures
from sphere_jax.evaluation import report as page
from sphere_jax.evaluation.classifier import Classifier, train_classifier
from sphere_jax.evaluation.protocol import Generation, protocol
from sphere_jax.evaluation.score import Reference, Score, prepare_reference, score
from sphere_jax.experiment import Run
from sphere_jax.files import write_bytes, write_json, write_npz
from sphere_jax.generation import Samples, balanced_labels, draw
from sphere_jax.training.logging import RunLog, duration, read_rows, say


def score_run(run: Run, log: RunLog, seed: int | None = None) -> dict:
    """Draws, scores and writes the report of a finished run; returns what `results.json` holds."""
    if run.flow is None:
        log.say("No stage generates; there is nothing to score.")
        return {}
    count = run.config.evaluation.samples
    if count == 0:
        log.say("config.evaluation.samples = 0; no samples drawn, no report.")
        return {}
    seed = run.config.seed if seed is None else seed
    samples = draw(run, balanced_labels(count, run.config.data.num_classes), seed)
    results = {
        "seed": seed,
        "space": to_dict(run.config)["space"],
        "nfe": samples.evaluations,
        "stages": run.metrics,
    }
    scored = stamp = None
    if samples.images is not None:
        reference = reference_of(run)
        scored = score_images(
            reference, samples.images, samples.labels, run.config.evaluation.neighbours
        )
        stamp = protocol(
            reference,
            run.config.data.source,
            scored,
            run.config.evaluation.neighbours,
            generation_of(samples, seed),
        )
        results |= {"metrics": scored.metrics, "yardstick": scored.yardstick, "protocol": stamp}
        for key, value in scored.metrics.items():
            log.say(f"{key} = {value:.4g}   (yardstick: {scored.yardstick[key]:.4g})")
    if is_main_process():
        write_files(run, samples, scored, stamp, results)
    log.say(f"report: {run.workdir / 'report.html'}")
    return results


def reference_of(run: Run) -> Reference:
    """The feature network and the judge for a run's data, trained once and kept in its folder."""
    file = run.workdir / "evaluator" / "classifier.safetensors"
    train, classes = run.split.train.arrays, run.config.data.num_classes
    if file.exists():
        try:
            classifier = Classifier.load(file)
        except ValueError as error:
            raise UserError(f"{error} Delete it to train it again.") from error
    else:
        started = time.monotonic()
        try:
            classifier = train_classifier(
                train["images"],
                train["labels"],
                classes,
                steps=run.config.evaluation.classifier_steps,
            )
        except ValueError as error:
            raise UserError(f"This data set cannot be scored against: {error}") from error
        if is_main_process():
            file.parent.mkdir(exist_ok=True)
            classifier.save(file)
        say(
            f"feature network: {100 * classifier.accuracy:.1f}% of images set aside, trained in "
            f"{duration(time.monotonic() - started)}"
        )
    try:
        return prepare_reference(run.split, classifier, classes)
    except ValueError as error:
        raise UserError(f"This data set cannot be scored against: {error}") from error


def score_images(reference: Reference, images, labels, neighbours: int) -> Score:
    """Raises UserError for what cannot be scored (too few images, another shape)."""
    try:
        return score(reference, images, labels, neighbours)
    except ValueError as error:
        raise UserError(f"These samples cannot be scored: {error}") from error


def generation_of(samples: Samples, seed: int) -> Generation:
    s = samples.sampler
    return Generation(
        seed=seed,
        solver=s.solver,
        steps=s.steps,
        evaluations=samples.evaluations,
        guidance=s.guidance.scale,
        guidance_interval=(s.guidance.low, s.guidance.high),
        time_shift=s.shift,
        weights="EMA",
    )


def write_files(run: Run, samples: Samples, scored: Score | None, stamp, results) -> None:
    """`samples/final.png` (or `.npz`), `results.json`, `report.html`."""
    config, workdir = run.config, run.workdir
    names = [str(label) for label in range(config.data.num_classes)]
    sections, headlines = [], []

    if samples.images is not None:
        shown = figures.sample_grid(samples.images, samples.labels, names)
        write_bytes(workdir / "samples" / "final.png", shown)
        caption = "Not chosen: the first samples of the seed, one class a row."
        sections.append(page.Section("Samples", [page.Picture(shown, caption)]))
    else:
        drawn = {"latents": samples.latents, "labels": samples.labels}
        write_npz(workdir / "samples" / "final.npz", drawn)
    if scored is not None:
        blocks = [page.metrics_table(scored), page.agreement_table(scored, names)]
        sections.append(page.Section("Scores", blocks))
        for key in sorted(scored.metrics, key=lambda key: key != "class_agreement")[:4]:
            name, better = page.describe(key)
            note = f"yardstick: {scored.yardstick[key]:.3g}; better: {better}"
            headlines.append(page.Headline(name, f"{scored.metrics[key]:.3g}", note))

    sections.append(page.Section("Sampling path", [_radius(run, samples)]))
    sections += _stage_sections(run)
    rows = read_rows(workdir / "metrics.jsonl")
    captions = {
        "loss": "Training loss, one panel a stage.",
        "heldout_loss": "Held-out loss of the EMA weights.",
    }
    curves = [
        page.Picture(figures.loss_curves(rows, key), caption)
        for key, caption in captions.items()
        if any(isinstance(row.get(key), float) for row in rows)  # metrics.jsonl may be lost
    ]
    if curves:
        sections.append(page.Section("Loss curves", curves))
    if stamp is not None:
        sections.append(page.Section("Protocol", [page.protocol_table(stamp)]))
    command = f"python -m sphere_jax.main --config=FILE --workdir={workdir.name}"
    settings = json.dumps(to_dict(config), indent=1)
    sections.append(page.Section("Reproduce", [page.Code(command), page.Code(settings)]))

    summary = (
        f"{config.space.path} flow matching on {config.data.source}, seed {results['seed']}: "
        f"{len(samples.labels):,} samples, {samples.sampler.solver} with {samples.sampler.steps} "
        f"steps, guidance {samples.sampler.guidance.scale:g}, NFE {samples.evaluations}."
    )
    write_json(workdir / "results.json", results)
    page.write_report(workdir / "report.html", f"{workdir.name}", summary, headlines, sections)


def _radius(run: Run, samples: Samples) -> page.Picture:
    drawn = figures.radius_along_path(
        {run.config.space.path: samples.radii}, samples.sampler.times()
    )
    drift = float(np.abs(samples.radii - 1).max())
    return page.Picture(
        drawn, f"Mean token norm over radius while sampling; largest deviation {drift:.1e}."
    )


def _stage_sections(run: Run) -> list[page.Section]:
    """What each stage measured: reconstructions, radii, numbers."""
    sections = []
    for name in run.config.stages:
        arrays, metrics = run.arrays[name], run.metrics[name]
        blocks = []
        if metrics:
            rows = [[key.replace("_", " "), value] for key, value in metrics.items()]
            blocks.append(page.Table(["measured", ""], rows))
        if "radii" in arrays:
            d = run.flow[1].tokenizer.latent_shape[-1]
            histogram = figures.norm_histogram({"training latents": arrays["radii"] / np.sqrt(d)})
            blocks.append(
                page.Picture(histogram, "Norms of the normalised tokens over sqrt(d), unprojected.")
            )
        if "original" in arrays:
            rows = {key.replace("_", " "): images for key, images in arrays.items()}
            blocks.append(
                page.Picture(figures.labelled_rows(rows), "Held-out images and reconstructions.")
            )
        if blocks:
            sections.append(page.Section(f"Stage: {name}", blocks))
    return sections
