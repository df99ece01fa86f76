"""Scores of a run: while it trains, and at its end with `results.json` and `report.html`."""

import dataclasses
from functools import cached_property

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.progress import log
from sphere_jax.config.reading import to_dict
from sphere_jax.data.array_mends import all_alike, doubt_about_pixels
from sphere_jax.evaluation.protocol import protocol
from sphere_jax.evaluation.score import Reference, Score, point_of_curve, score
from sphere_jax.evaluation.score_tables import reading, remark_of
from sphere_jax.runs.drawing import Drawer, Samples, balanced_labels
from sphere_jax.runs.labels import BALANCED
from sphere_jax.runs.partial import delete_partial
from sphere_jax.runs.reference import check_enough, check_reference, reference_of
from sphere_jax.runs.reporting import write_files, write_stages
from sphere_jax.runs.run import Run
from sphere_jax.runs.weaker import check_weaker
from sphere_jax.training.run_log import RunLog

# Pictures along the sampling path, in the report: samples (fewer if they are wider than so many
# pixels in all) and points of the path.
PATH_SAMPLES, PATH_WIDTH, PATH_POINTS = 8, 1024, 6


class Scorer:
    """Scores of a run while it trains and at its end; both share reference and drawer.

    `known` caches references for other runs of this process on the same data (`reference_of`).
    Raises UserError at once if something is missing: images, weights of the features, or
    the weaker run of auto-guidance.
    """

    def __init__(self, run: Run, known: dict | None = None):
        self._run, self._known, config = run, known, run.config
        configured = config.evaluation.samples > 0 or config.evaluation.every > 0
        self.scores = bool(configured and config.generator and run.generator.has_images)
        if self.scores:
            check_reference(config)
            check_enough(config, run.split)
        if config.generator:
            check_weaker(config)

    @cached_property
    def reference(self) -> Reference:
        return reference_of(self._run, self._known)

    @cached_property
    def drawer(self) -> Drawer:
        """Of the run's own seed."""
        return Drawer(self._run, self._run.config.seed)

    def point_of_curve(self, trained: dict, what: str) -> dict[str, float]:
        """Scores of `config.evaluation.curve_samples` images by the parameters `trained` of the
        stage that generates: by the run's own sampler, always in the same noise and classes. After
        a kill, drawing goes on where it was; `what` names these weights.
        """
        evaluation, classes = self._run.config.evaluation, self._run.config.data.num_classes
        labels = balanced_labels(evaluation.curve_samples, classes)
        samples = self.drawer.draw(labels, trained=trained, quiet=True, resumes=what)
        labels = labels_of(self._run, samples)
        found = _scored(
            point_of_curve, self.reference, samples.images, labels, evaluation.neighbours
        )
        self.drawer.used(what)
        return found


def score_run(run: Run, log: RunLog, scorer: Scorer | None = None) -> dict:
    """Draws, scores and writes the report of a finished run; returns what `results.json` holds."""
    if run.generator is None:
        return _report_stages(run, log)
    count = run.config.evaluation.samples
    if count == 0:
        log.print("config.evaluation.samples = 0; no samples drawn, no report.")
        return {}
    seed, scorer = run.config.seed, scorer or Scorer(run)
    labels = balanced_labels(count, run.config.data.num_classes)
    samples = scorer.drawer.draw(labels, resumes="final")
    results = {
        "seed": seed,
        "space": to_dict(run.config)["space"],
        "nfe": samples.evaluations,
        "stages": run.metrics,
    }
    scored = stamp = None
    if samples.images is not None:
        reference = scorer.reference
        scored = score_images(
            reference, samples.images, labels_of(run, samples), run.config.evaluation.neighbours
        )
        stamp = protocol(
            reference,
            run.config.source.images_behind(run.config).source,
            scored.samples,
            run.config.evaluation.neighbours,
            generation_of(run, samples.sampler, seed),
        )
        results |= {"metrics": scored.metrics, "real_data": scored.real_data, "protocol": stamp}
        log.scores(run.config.stage(run.config.generator).steps, scored.metrics)
        remark = remark_of(stamp)
        for key, value in scored.metrics.items():
            better = reading(key, remark)
            log.print(
                f"{key} = {value:.4g}   (real data: {scored.real_data[key]:.4g}; better: {better})"
            )
    others = _at_other_steps(run, scorer, samples, log) if scored else []
    if others:
        results["at_steps"] = [{k: v for k, v in row.items() if k != "images"} for row in others]
    columns = max(2, min(PATH_SAMPLES, PATH_WIDTH // run.config.data.image_size))
    path = scorer.drawer.path(samples.labels[:columns], PATH_POINTS)
    if is_main_process():
        write_files(run, samples, scored, stamp, results, others, path)
    delete_partial(run.workdir)
    log.print(f"report: {run.workdir / 'report.html'}")
    return results


def _report_stages(run: Run, log: RunLog) -> dict:
    """Writes the report of a run that does not generate: what its stages measured."""
    results = {
        "seed": run.config.seed,
        "space": to_dict(run.config)["space"],
        "stages": run.metrics,
    }
    if is_main_process():
        write_stages(run, results)
    log.print(f"report: {run.workdir / 'report.html'}")
    return results


def _at_other_steps(run: Run, scorer: Scorer, samples: Samples, log: RunLog) -> list[dict]:
    """The same samples in the numbers of steps that `config.evaluation.at_steps` names."""
    rows = []
    for steps in run.config.evaluation.at_steps:
        sampler = dataclasses.replace(samples.sampler, steps=steps)
        drawn = scorer.drawer.draw(samples.labels, sampler, resumes=f"final-{steps}-steps")
        neighbours = run.config.evaluation.neighbours
        labels = labels_of(run, drawn)
        metrics = score_images(scorer.reference, drawn.images, labels, neighbours).metrics
        log.print(f"{steps} steps, NFE {drawn.evaluations}: "
                + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))  # fmt: skip
        rows.append({"steps": steps, "nfe": drawn.evaluations, "metrics": metrics,
                     "images": drawn.images})  # fmt: skip
    return rows


def labels_of(run: Run, samples: Samples):
    """The classes that samples were drawn for; None of an unconditional generator."""
    return samples.labels if run.generator.conditional else None


def score_images(reference: Reference, images, labels, neighbours: int) -> Score:
    """Says so where all images are black or the same.

    Raises UserError for what cannot be scored (too few images, another shape).
    """
    if doubt := doubt_about_pixels(images):
        log(f"warning: the samples {doubt.partition(';')[0]}.")
    elif all_alike(images):
        log("warning: all samples are the same image.")
    return _scored(score, reference, images, labels, neighbours)


def _scored(function, *given):
    try:
        return function(*given)
    except ValueError as error:
        raise UserError(f"These samples cannot be scored: {error}") from error


def generation_of(run: Run, sampler, seed: int, labels: str = BALANCED) -> dict:
    """How samples were drawn: all that must be equal before two scores are compared. `labels`: how
    their classes were chosen, as `runs.labels` says it."""
    weights = run.override or run.config.stage(run.config.generator).weights
    known = sampler.evaluations
    nfe = "adaptive" if known is None else known
    made = {"seed": seed, "labels": labels, "evaluations": nfe, "weights": weights}
    return made | dataclasses.asdict(sampler)
