"""The log of a run: lines on the screen, `metrics.jsonl`, TensorBoard files."""

import json
import math
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

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
        self._board: SummaryWriter | None = None
        self._hook = threading.excepthook
        if is_main_process():
            self._board = SummaryWriter(str(Path(workdir) / "tensorboard"))
            threading.excepthook = self._thread_ended

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
            self._show("scalar", f"{stage}/{name}", value, step)

    def picture(self, stage: str, step: int, name: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        """An image, for TensorBoard."""
        self._show("image", f"{stage}/{name}", image, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Markdown, for TensorBoard."""
        self._show("text", name, text)

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Scores of the finished run, for TensorBoard; the report has them too."""
        for name, value in scores.items():
            self._show("scalar", f"final_scores/{name}", value, step)

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
        threading.excepthook = self._hook

    def _show(self, kind: str, *what: Any, **more: Any) -> None:
        if self._board is not None:
            getattr(self._board, f"add_{kind}")(*what, **more)

    def _thread_ended(self, ended: threading.ExceptHookArgs) -> None:
        """TensorBoard's writer is a thread. Without it the queue to it would fill up and block."""
        ours = type(ended.thread).__module__.startswith(SummaryWriter.__module__.split(".")[0])
        if not (ours and isinstance(ended.exc_value, OSError)):
            self._hook(ended)
        elif self._board is not None:
            self._board = None
            why = reason(ended.exc_value, self.path.parent)
            log(f"TensorBoard's files cannot be written ({why}); the rest of this run lacks them.")


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
