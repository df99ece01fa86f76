"""Of a comparison's page: scores while the arms trained, and the time to a target."""

import numpy as np

from sphere_jax.evaluation import page, score_tables
from sphere_jax.studies.comparing.curves import band_curves
from sphere_jax.studies.comparing.numbers import CONFIDENCE, Difference, mean_and_deviation
from sphere_jax.studies.comparing.outcomes import Comparison

ONE_SEED = "One seed: there is no interval, and a difference may be that of the seed."


def curve_sections(comparison: Comparison) -> list[page.Section]:
    """Scores against steps, all; against seconds of training, that of the target."""
    metrics = comparison.curve_metrics
    if not metrics:
        return []

    def panel(metric, axis):
        found = {}
        for arm in comparison.names:
            curves = (comparison.curve(s, arm, metric) for s in comparison.seeds_of(arm))
            scored = [(c[axis], c[2]) for c in curves if c[2]]
            if scored:
                found[arm] = scored
        return found

    curves = [outcome.curve for outcome in comparison.outcomes.values()]
    if max(map(len, curves)) < 2:
        return [_one_point(comparison, metrics)]
    first = comparison.target_metric or metrics[0]
    target = comparison.target.value if comparison.target else None
    titles = {metric: metric.replace("_", " ") for metric in metrics}
    steps = {titles[metric]: panel(metric, 0) for metric in metrics}
    seconds = {titles[first]: panel(first, 1)}
    mark = {titles[first]: target}
    samples = comparison.configs[comparison.seeds[0], comparison.baseline].evaluation.curve_samples
    several = len(comparison.seeds) > 1
    caption = f"Scores of {samples:,} samples while the arms trained, in the same noise."
    caption += " Lines: mean over seeds; bands: their range." if several else ""
    spent = "The same against seconds of training (without compiling, previews and scoring)."
    blocks = [
        page.Picture(band_curves("step", steps, mark), caption),
        page.Picture(band_curves("seconds of training", seconds, mark), spent),
        *_differences(comparison, first),
    ]
    return [page.Section("While training", blocks)]


def _one_point(comparison: Comparison, metrics: list[str]) -> page.Section:
    """The numbers, where all arms were scored at one step alone while they trained."""
    rows = []
    for arm in comparison.names:
        seeds, row = comparison.seeds_of(arm), [arm]
        for metric in metrics:
            curves = (comparison.curve(seed, arm, metric) for seed in seeds)
            values = [value for *_, values in curves for value in values]
            row.append(mean_and_deviation(values) if values else None)
        if seeds:
            rows.append(row)
    header = [comparison.label, *(score_tables.describe(metric)[0] for metric in metrics)]
    (step, *_) = (row["step"] for o in comparison.outcomes.values() for row in o.curve)
    return page.Section("While training", [page.Table(header, rows), page.Text(f"Step {step:,}.")])


def _differences(comparison: Comparison, metric: str) -> list[page.Table | page.Text]:
    """Arms minus baseline, one row a scored step."""
    found = {
        arm: comparison.differences_by_step(arm, metric)
        for arm in comparison.names
        if arm != comparison.baseline
    }
    found = {arm: by_step for arm, by_step in found.items() if by_step}
    steps = sorted({step for by_step in found.values() for step in by_step})
    if not steps:
        return []
    rows = [[f"{s:,}", *(shown(by_step.get(s)) for by_step in found.values())] for s in steps]
    text = (
        f"{score_tables.describe(metric)[0]}: arm minus '{comparison.baseline}' at the same step, "
        f"paired by seed, with {CONFIDENCE:.0%} t-intervals."
    )
    text += "" if len(comparison.seeds) > 1 else f" {ONE_SEED}"
    return [page.Table(["step", *found], rows), page.Text(text)]


def shown(difference: Difference | None) -> str:
    """A cell of a table: the mean, its interval and the verdict."""
    if difference is None:
        return "–"
    if difference.half_width is None:
        return f"{difference.mean:+.3g} (one seed)"
    return f"{difference.mean:+.3g} ± {difference.half_width:.2g}: {difference.verdict}"


def target_sections(comparison: Comparison) -> list[page.Section]:
    """Steps and time to a target score."""
    metric = comparison.target_metric
    rows = []
    for arm in comparison.names if metric else []:
        steps, seconds = (comparison.reached(arm, axis) for axis in ("steps", "seconds"))
        if steps and seconds:
            rows.append([arm, *_reached(steps), *_reached(seconds)])
    if not rows:
        return []
    name, value = score_tables.describe(metric)[0], comparison.target and comparison.target.value
    goal = f"{value:g}" if value is not None else f"what '{comparison.baseline}' ends at, by seed"
    header = [comparison.label, "steps", "times fewer", "seconds", "times less"]
    text = (
        f"Where each arm first reaches a {name} of {goal}, linear between scored steps: seed by "
        f"seed, their mean; and how many times sooner than the baseline (geometric mean, "
        f"{CONFIDENCE:.0%} t-interval)."
    )
    text += "" if len(comparison.seeds) > 1 else f" {ONE_SEED}"
    return [page.Section("Time to a target", [page.Table(header, rows), page.Text(text)])]


def _reached(reached) -> tuple[str, str]:
    values = list(reached.arm.values())
    there = [value for value in values if value is not None]
    if not there:
        return "not reached", "–"
    each = ", ".join("never" if value is None else f"{value:,.4g}" for value in values)
    mean = f"{np.mean(there):,.4g} " if len(there) == len(values) else ""  # of all seeds or none
    text = f"{mean}({each})" if len(values) > 1 else each
    if reached.speed_up is None:
        return text, "–"
    factor, interval = reached.speed_up
    return text, f"{factor:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")
