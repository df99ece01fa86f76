"""The results of finished arms, read from their folders."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from sphere_jax.common.progress import log
from sphere_jax.config.options import Config
from sphere_jax.data.npz_files import read_npz
from sphere_jax.evaluation.protocol import with_current_keys
from sphere_jax.runs.reporting import FIRST_SAMPLES, NOT_SCORES, curve_rows
from sphere_jax.studies.comparing.arms import Arm
from sphere_jax.studies.comparing.matched import check_matched, read_matched, reference_item
from sphere_jax.studies.comparing.numbers import (
    Difference,
    badness,
    first_reached,
    paired_difference,
    speed_up,
)
from sphere_jax.training.run_log import read_rows


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One finished arm in one seed."""

    metrics: dict[str, float]  # NaN where a number was not finite
    results: dict
    curve: list[dict]  # rows with `step`, `training_seconds` and scores
    matched: dict[str, str]
    samples: np.ndarray | None  # uint8 (n, H, W, C), the same noise and labels in every arm


def read_outcome(workdir: Path, results: dict, config: Config) -> Outcome:
    results, file = with_current_keys(results), workdir / "samples" / FIRST_SAMPLES
    samples = read_npz(str(file), ("images",))["images"] if file.is_file() else None
    if samples is None:
        log(f"{file} is not there: the page has no pictures of this run")
    rows = curve_rows(read_rows(workdir / "metrics.jsonl"), config.generator)
    items = (read_matched(workdir) or {}) | {"reference": reference_item(results)}
    metrics = {key: _number(value) for key, value in results["metrics"].items()}
    return Outcome(metrics, results, rows, items, samples)


@dataclasses.dataclass(frozen=True)
class Target:
    """A value of a metric to be reached; None is the one that the baseline ends at, by seed."""

    metric: str
    value: float | None


@dataclasses.dataclass(frozen=True)
class Reached:
    """Where arm and baseline reach the target along one axis, seed by seed (None: never)."""

    arm: dict[int, float | None]
    baseline: dict[int, float | None]

    @property
    def speed_up(self):
        return speed_up(list(self.arm.values()), list(self.baseline.values()))


@dataclasses.dataclass
class Comparison:
    """The arms, their configs by (seed, name), and the outcomes so far."""

    root: Path
    label: str  # what the names of arms are values of
    arms: Sequence[Arm]
    seeds: Sequence[int]
    configs: dict[tuple[int, str], Config]
    baseline: str
    target: Target | None = None
    command: str = ""  # for a shell, if a command runs it
    outcomes: dict[tuple[int, str], Outcome] = dataclasses.field(default_factory=dict)

    @cached_property
    def names(self) -> list[str]:
        return [arm.name for arm in self.arms]

    def workdir(self, seed: int, name: str) -> Path:
        arm = next(arm for arm in self.arms if arm.name == name)
        return self.root / arm.folder(seed)

    @property
    def metrics(self) -> list[str]:
        """Of the final scores, in their order: those that every arm has."""
        first, *others = (outcome.metrics for outcome in self.outcomes.values())
        return [name for name in first if all(name in metrics for metrics in others)]

    @property
    def partial_metrics(self) -> list[str]:
        """Scores that only some arms have."""
        names = dict.fromkeys(name for o in self.outcomes.values() for name in o.metrics)
        return [name for name in names if name not in self.metrics]

    def seeds_of(self, *names: str) -> list[int]:
        """Those in which all of these arms are finished."""
        return [s for s in self.seeds if all((s, name) in self.outcomes for name in names)]

    def values(self, name: str, metric: str, seeds: Sequence[int] | None = None) -> list[float]:
        """Final scores of an arm, by seed."""
        seeds = self.seeds_of(name) if seeds is None else seeds
        return [self.outcomes[seed, name].metrics[metric] for seed in seeds]

    def difference(self, name: str, metric: str) -> Difference | None:
        """From the baseline, over the seeds that both have."""
        seeds = self.seeds_of(name, self.baseline)
        pair = (self.values(arm, metric, seeds) for arm in (name, self.baseline))
        return paired_difference(metric, *pair)

    def differences_by_step(self, name: str, metric: str) -> dict[int, Difference]:
        """The same of the scores while training, at each step that all those seeds scored."""
        seeds, scored = self.seeds_of(name, self.baseline), []
        for arm in (name, self.baseline):
            for seed in seeds:
                steps, _, values = self.curve(seed, arm, metric)
                scored.append(dict(zip(steps, values, strict=True)))
        found = {}
        for step in sorted(set.intersection(*map(set, scored))) if scored else ():
            values = [by_step[step] for by_step in scored]
            found[step] = paired_difference(metric, values[: len(seeds)], values[len(seeds) :])
        return {step: difference for step, difference in found.items() if difference}

    def curve(self, seed: int, name: str, metric: str) -> tuple[list, list, list]:
        """Steps, seconds and values of the scores while it trained, where they are finite."""
        rows = [(r["step"], r["training_seconds"], r.get(metric)) for r in self._rows(seed, name)]
        rows = [row for row in rows if isinstance(row[2], (int, float))]
        return tuple(map(list, zip(*rows, strict=True))) if rows else ([], [], [])

    @property
    def curve_metrics(self) -> list[str]:
        names: dict[str, None] = {}
        for outcome in self.outcomes.values():
            for row in outcome.curve:
                names |= dict.fromkeys(key for key in row if key not in NOT_SCORES)
        return list(names)

    @property
    def target_metric(self) -> str | None:
        """The one of `target`, or the first of the curves where lower or higher is better."""
        if self.target:
            return self.target.metric if self.target.metric in self.curve_metrics else None
        return next((m for m in self.curve_metrics if badness(m, 0.0) is not None), None)

    def target_value(self, seed: int) -> float | None:
        if self.target and self.target.value is not None:
            return self.target.value
        *_, values = self.curve(seed, self.baseline, self.target_metric)
        return values[-1] if values else None

    def reached(self, name: str, axis: str) -> Reached | None:
        """Along `axis`, "steps" or "seconds"; None where an arm has no curve."""
        metric, found = self.target_metric, ({}, {})
        if metric is None:
            return None
        for seed in self.seeds_of(name, self.baseline):
            for where, arm in zip(found, (name, self.baseline), strict=True):
                steps, seconds, values = self.curve(seed, arm, metric)
                along, target = steps if axis == "steps" else seconds, self.target_value(seed)
                if not values or target is None:
                    return None
                where[seed] = first_reached(along, values, metric, target)
        return Reached(*found) if found[0] else None

    def check(self) -> dict[str, dict[str, str]]:
        """{arm: {item: "yes" or what explains a difference}}, the worst over seeds.

        Raises UserError for arms that are not matched.
        """
        found: dict[str, dict[str, str]] = {}
        for name in self.names:
            for seed in self.seeds_of(name, self.baseline):
                checked = check_started(self, seed, name, self.outcomes[seed, name].matched)
                worst = found.setdefault(name, checked)
                worst |= {item: result for item, result in checked.items() if result != "yes"}
        return found

    def _rows(self, seed: int, name: str) -> list[dict]:
        return self.outcomes[seed, name].curve


def check_started(comparison: Comparison, seed: int, name: str, items: dict) -> dict[str, str]:
    """Compares an arm with the baseline of its seed, if that has started. Raises UserError."""
    done = comparison.outcomes.get((seed, comparison.baseline))
    baseline = done.matched if done else read_matched(comparison.workdir(seed, comparison.baseline))
    if baseline is None:
        return {}
    own, its = comparison.configs[seed, name], comparison.configs[seed, comparison.baseline]
    arm, other = (name, items, own), (comparison.baseline, baseline, its)
    return check_matched(comparison.root, seed, arm, other)


def _number(value: float | None) -> float:
    """JSON stores NaN as null."""
    return float("nan") if value is None else value
