"""The end of a run: samples, their scores, `report.html` and `results.json`."""

import dataclasses
import json
import time

import numpy as np

from sphere_jax.config import to_dict
from sphere_jax.distribution.start import is_main_process
from sphere_jax.errors import UserError
from sphere_jax.evaluation import figures
from sphere_jax.evaluation import report as page
from sphere_jax.evaluation.classifier import Classifier, train_classifier
from sphere_jax.evaluation.features import PublishedFeatures
from sphere_jax.evaluation.protocol import protocol
from sphere_jax.evaluation.score import Reference, Score, prepare_reference, score
from sphere_jax.experiment import Run
from sphere_jax.files import write_bytes, write_json, write_npz
from sphere_jax.generation import Samples, balanced_labels, draw
from sphere_jax.training.logging import RunLog, duration, read_rows, say


def score_run(run: Run, log: RunLog, seed: int | None = None) -> dict:
    """Draws, scores and writes the report of a finished run; returns what `results.json` holds."""
    if run.generator is None:
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
        "nfe": samples.sampler.evaluations,
        "stages": run.metrics,
    }
    scored = stamp = None
    cached = run.config.data.source == "cache"
    if cached:
        log.say("Not scored: a latent cache has no images; sphere_jax.evaluate --samples scores.")
    if samples.images is not None and not cached:
        reference = reference_of(run)
        scored = score_images(
            reference, samples.images, samples.labels, run.config.evaluation.neighbours
        )
        stamp = protocol(
            reference,
            run.config.data.source,
            scored,
            run.config.evaluation.neighbours,
            generation_of(run, samples, seed),
        )
        results |= {"metrics": scored.metrics, "yardstick": scored.yardstick, "protocol": stamp}
        for key, value in scored.metrics.items():
            log.say(f"{key} = {value:.4g}   (yardstick: {scored.yardstick[key]:.4g})")
    others = _at_other_steps(run, reference, samples, seed, log) if scored else []
    if others:
        results["at_steps"] = [{k: v for k, v in row.items() if k != "images"} for row in others]
    if is_main_process():
        write_files(run, samples, scored, stamp, results, others)
    log.say(f"report: {run.workdir / 'report.html'}")
    return results


def _at_other_steps(run: Run, reference: Reference, samples: Samples, seed, log) -> list[dict]:
    """The same samples in the numbers of steps that `config.evaluation.at_steps` names."""
    rows = []
    for steps in run.config.evaluation.at_steps:
        sampler = dataclasses.replace(samples.sampler, steps=steps)
        drawn = draw(run, samples.labels, seed, sampler)
        neighbours = run.config.evaluation.neighbours
        metrics = score_images(reference, drawn.images, drawn.labels, neighbours).metrics
        log.say(f"{steps} steps, NFE {sampler.evaluations}: "
                + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))  # fmt: skip
        rows.append({"steps": steps, "nfe": sampler.evaluations, "metrics": metrics,
                     "images": drawn.images})  # fmt: skip
    return rows


def reference_of(run: Run) -> Reference:
    """The feature network and the judge for a run's data.

    The small classifier is trained once and kept in the run's folder; published features come from
    a file.

    Raises:
      UserError: the run has latents alone, too few images, or no weights of the features.
    """
    if "images" not in run.split.train.arrays:
        raise UserError(
            "This run's data are latents, which nothing can be scored against; draw "
            "sphere_jax.sample --out=F.npz and score --samples=F.npz against --reference=D.npz."
        )
    features = _published_features(run) or _classifier(run)
    try:
        return prepare_reference(run.split, features, run.config.data.num_classes)
    except ValueError as error:
        raise UserError(f"This data set cannot be scored against: {error}") from error


def _published_features(run: Run) -> PublishedFeatures | None:
    name, path = run.config.evaluation.features, run.config.evaluation.pretrained
    if name == "small_classifier":
        return None
    if not path:
        raise UserError(
            f"config.evaluation.pretrained is empty; give it the weights of '{name}': what "
            f"python -m sphere_jax.convert --network {name} --out F.safetensors writes."
        )
    shape = run.split.train.arrays["images"].shape[1:]
    return PublishedFeatures.load(name, path, shape)


def _classifier(run: Run) -> Classifier:
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
    return classifier


def score_images(reference: Reference, images, labels, neighbours: int) -> Score:
    """Raises UserError for what cannot be scored (too few images, another shape)."""
    try:
        return score(reference, images, labels, neighbours)
    except ValueError as error:
        raise UserError(f"These samples cannot be scored: {error}") from error


def generation_of(run: Run, samples: Samples, seed: int) -> dict:
    """How samples were drawn: all that must be equal before two scores are compared."""
    weights = run.config.stage(run.config.generator).weights
    made = {"seed": seed, "evaluations": samples.sampler.evaluations, "weights": weights}
    return made | dataclasses.asdict(samples.sampler)


def write_files(run: Run, samples: Samples, scored: Score | None, stamp, results, others) -> None:
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

    if others:
        sections.append(_steps_section(samples, scored, others))
    if "radius" in samples.trace:
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
        f"{_system(config)} on {config.data.source}, seed {results['seed']}: "
        f"{len(samples.labels):,} samples, {samples.sampler}, NFE {samples.sampler.evaluations}."
    )
    write_json(workdir / "results.json", results)
    page.write_report(workdir / "report.html", f"{workdir.name}", summary, headlines, sections)


def _system(config) -> str:
    method = config.stage(config.generator).method
    names = {
        "flow": f"{config.space.path} flow matching",
        "sphere_encoder": "Sphere Encoder",
        "sphere_latent": "Sphere Latent Encoder",
    }
    return names[method]


def _steps_section(samples: Samples, scored: Score, others: list[dict]) -> page.Section:
    """Scores and pictures against the number of sampling steps, at equal seeds."""
    own = {"steps": samples.sampler.steps, "nfe": samples.sampler.evaluations,
           "metrics": scored.metrics, "images": samples.images}  # fmt: skip
    rows = sorted([own, *others], key=lambda row: row["steps"])
    names = list(scored.metrics)
    table = page.Table(
        ["steps", "NFE", *(page.describe(name)[0] for name in names)],
        [[row["steps"], row["nfe"], *(row["metrics"][name] for name in names)] for row in rows],
    )
    strips = {f"steps: {row['steps']}": row["images"][:10] for row in rows}
    pictures = figures.labelled_rows(strips)
    return page.Section("Steps", [table, page.Picture(pictures, "The same samples in more steps.")])


def _radius(run: Run, samples: Samples) -> page.Picture:
    drawn = figures.radius_along_path(
        {run.config.space.path: samples.trace["radius"]}, samples.sampler.times()
    )
    drift = float(np.abs(samples.trace["radius"] - 1).max())
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
            d = run.generator.tokenizer.latent_shape[-1]
            histogram = figures.norm_histogram({"training latents": arrays["radii"] / np.sqrt(d)})
            blocks.append(
                page.Picture(histogram, "Norms of the normalised tokens over sqrt(d), unprojected.")
            )
        if "original" in arrays:
            rows = {k.replace("_", " "): v for k, v in arrays.items() if v.dtype == np.uint8}
            blocks.append(
                page.Picture(figures.labelled_rows(rows), "Held-out images and reconstructions.")
            )
        if "noise_psnr" in arrays:
            curve = figures.curve(
                arrays["noise_angle"], arrays["noise_psnr"], "angle of noise, degrees", "PSNR, dB"
            )
            blocks.append(page.Picture(curve, "Decoding held-out latents that noise has turned."))
        if blocks:
            sections.append(page.Section(f"Stage: {name}", blocks))
    return sections
