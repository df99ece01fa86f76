"""The log of a run: lines on the screen, `metrics.jsonl`, TensorBoard files."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import reason, write_text
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.progress import log


class RunLog:
    """Writes the metrics of the run in `workdir`, to `path`, from the first process only."""

    def __init__(self, workdir: Path):
        self.path = Path(workdir) / "metrics.jsonl"
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
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"stage": stage, "step": step, **plain}) + "\n")
        except OSError as error:
            why = reason(error, self.path.parent)
            raise UserError(f"Cannot write {self.path} ({why}).") from error
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
            rows = read_rows(self.path)
            write_rows(self.path, [r for r in rows if r["stage"] != stage or r["step"] <= step])

    def training_seconds(self, stage: str, step: int) -> float:
        return training_seconds(read_rows(self.path), stage, step)

    def close(self) -> None:
        if self._board is not None:
            with suppress(OSError):  # of a full disk, say: an error before this one is reported
                self._board.close()


def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows of a `metrics.jsonl`, if it exists. A last line cut off by a kill is ignored;
    another damaged one is left out, and a line says so."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = [_row(line) for line in lines]
    if damaged := sum(row is None for row in rows[:-1]):
        log(f"{path}: {damaged} damaged of {len(rows):,} lines left out; only curves use them")
    return [row for row in rows if row is not None]


def _row(line: bytes) -> dict | None:
    try:
        row = json.loads(line)
        return row if (type(row["stage"]), type(row["step"])) == (str, int) else None
    except (ValueError, KeyError, TypeError):
        return None


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
