"""The log of a run: lines on the screen, `metrics.jsonl`, TensorBoard files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter

from sphere_jax.common.files import write_text
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.progress import log


class RunLog:
    """Writes the metrics of the run in `workdir`, from the first process only."""

    def __init__(self, workdir: Path):
        self._path = Path(workdir) / "metrics.jsonl"
        self._board = (
            SummaryWriter(str(Path(workdir) / "tensorboard")) if is_main_process() else None
        )

    def print(self, line: str) -> None:
        """A line on the screen."""
        log(line)

    def write(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        """A row of `metrics.jsonl`, and the same for TensorBoard."""
        if not is_main_process():
            return
        # JSON has no NaN: a non-finite number is written as its name.
        plain = {k: v if math.isfinite(v) else str(v) for k, v in metrics.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"stage": stage, "step": step, **plain}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(f"{stage}/{name}", value, step)

    def picture(self, stage: str, step: int, name: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        """An image, for TensorBoard."""
        if is_main_process():
            self._board.add_image(f"{stage}/{name}", image, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Markdown, for TensorBoard."""
        if is_main_process():
            self._board.add_text(name, text)

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Scores of the finished run, for TensorBoard; the report has them too."""
        if is_main_process():
            for name, value in scores.items():
                self._board.add_scalar(f"final_scores/{name}", value, step)

    def drop_rows_after(self, stage: str, step: int) -> None:
        """Deletes the rows that a resumed stage will write again."""
        if is_main_process():
            rows = read_rows(self._path)
            write_rows(self._path, [r for r in rows if r["stage"] != stage or r["step"] <= step])

    def training_seconds(self, stage: str, step: int) -> float:
        return training_seconds(read_rows(self._path), stage, step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`, if it exists; a last line cut off by a kill is ignored."""
    rows = []
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def write_rows(path: Path, rows: list[dict]) -> None:
    """Replaces a `metrics.jsonl`."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def training_seconds(rows: list[dict], stage: str, step: int) -> float:
    """How long a stage had trained at `step`, from the rows of a `metrics.jsonl`; 0 without rows.

    Without a row of that step, the steps since the last row count at the average rate before it.
    """
    timed = [r for r in rows if r["stage"] == stage and r.get("training_seconds") and r["step"] > 0]
    last = max((r for r in timed if r["step"] <= step), key=lambda r: r["step"], default=None)
    return last["training_seconds"] * step / last["step"] if last else 0.0
