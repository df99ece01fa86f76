"""The weights of the best score so far, beside the checkpoints that training resumes from."""

import math
from pathlib import Path

from jaxtyping import PyTree

from sphere_jax.common.processes import told_by_main_process
from sphere_jax.common.progress import log
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.run_log import read_rows


def best_folder(folder: Path) -> Path:
    """Beside a stage's checkpoints in `folder`."""
    return folder.with_name(f"{folder.name}-best")


class KeepBest:
    """Keeps the weights of the best `metric` among a stage's scores in `folder`-best.

    What counts as the best so far is read from the rows of the log up to step `first`, where
    training resumes: later rows are written again, and later weights saved again, to the same bits.

    Args:
      metric: a key of the rows. lower: whether lower values are better.
      rows: the path of `metrics.jsonl`. stage: the stage's name there.
    """

    def __init__(self, folder: Path, metric: str, lower: bool, rows: Path, stage: str, first: int):
        self._folder, self._metric, self._lower, self._stage = folder, metric, lower, stage
        scored = [
            (row["step"], float(row[metric]))
            for row in read_rows(rows)
            if row["stage"] == stage and row["step"] <= first and metric in row
        ]
        finite = [(step, value) for step, value in scored if math.isfinite(value)]
        best = min(finite, key=lambda row: self._badness(row[1]), default=None)
        kept = self._kept()
        if best and (kept is None or kept <= first) and kept != best[0]:
            best = None  # another metric was kept before, or none
        if kept is not None and kept <= first and kept not in dict(finite):
            log(
                f"{stage}: {rows} has no {metric} of the weights of step {kept:,} that were kept as"
                " the best; the next score takes their place"
            )
        self._best = None if best is None else best[1]

    def offer(self, step: int, scores: dict[str, float], item: str, weights: PyTree) -> None:
        """Saves `weights` as the item of that name if the scores of `step` are the best so far;
        every process must call it. It returns once they are on the disk.

        Raises UserError where they cannot be written.
        """
        value = scores.get(self._metric, math.nan)
        better = math.isfinite(value) and (
            self._best is None or self._badness(value) < self._badness(self._best)
        )
        if not told_by_main_process(bool(better)):
            return
        self._best = value
        with Checkpoints(best_folder(self._folder), keep=1) as checkpoints:
            checkpoints.save(step, {item: weights}, {})
        log(f"{self._stage}: best {self._metric} so far, {value:.4g}; step {step:,} is kept")

    def _kept(self) -> int | None:
        folder = best_folder(self._folder)
        if not told_by_main_process(folder.is_dir()):  # all open it, or none
            return None
        with Checkpoints(folder, keep=1) as checkpoints:
            return checkpoints.newest_whole()

    def _badness(self, value: float) -> float:
        return value if self._lower else -value
