"""The log of a run: lines on the screen, `metrics.jsonl`, TensorBoard files.

A row of `metrics.jsonl` is an object of numbers but for `stage`, and for `crc32`, which is of the
text of the row up to it, closed by a brace: other programs pass it over.
"""

import json
import math
import os
import re
import threading
import zlib
from collections import Counter
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

SEALED = re.compile(rb'(\{.+), "crc32": "([0-9a-f]{8})"\}')  # as `_line` writes


class RunLog:
    """Writes the metrics of the run in `workdir`, to `path`, from the first process only."""

    def __init__(self, workdir: Path):
        self.path = Path(workdir) / "metrics.jsonl"
        self._rows: Counter[str] = Counter()  # of each stage, up to now
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
                file.write(_line({"stage": stage, "step": step, **plain}))
        except OSError as error:
            why = reason(error, self.path.parent)
            raise UserError(f"Cannot write {self.path} ({why}).") from error
        self._rows[stage] += 1
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

    def rows(self, stage: str) -> int:
        """How many rows of a stage there are, for the checkpoint of the same step."""
        return self._rows[stage]

    def drop_rows_after(self, stage: str, step: int, before: int = 0) -> None:
        """Deletes the rows that a resumed stage will write again. A line says if there are fewer
        others than `before`, which the checkpoint of `step` says."""
        if not is_main_process():
            return
        rows = read_rows(self.path)
        kept = [row for row in rows if row["stage"] != stage or row["step"] <= step]
        write_rows(self.path, kept)
        self._rows[stage] = sum(row["stage"] == stage for row in kept)
        if lost := max(before - self._rows[stage], 0):
            log(f"{self.path} lacks {lost:,} rows of {stage}: its curves have gaps there")

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
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    rows = [_row(line) for line in content.splitlines()]
    whole = rows if content.endswith(b"\n") else rows[:-1]
    if damaged := sum(row is None for row in whole):
        log(f"{path}: {damaged} damaged of {len(rows):,} lines left out; only curves use them")
    return [row for row in rows if row is not None]


def say_lost(path: Path, rows: list[dict], stage: str, last: int) -> None:
    """A line if rows of the `last` step of a finished stage are gone: every one has a loss and a
    held-out loss there, and scores where it was scored before."""
    own = [row for row in rows if row["stage"] == stage]
    scored = any("images_trained" in row for row in own)
    needed = ("loss", "heldout_loss", *(("images_trained",) if scored else ()))
    found = {name for row in own if row["step"] == last for name in row}
    if last and not found.issuperset(needed):
        log(f"{path} lacks rows of {stage} up to its last step, {last:,}; only curves use them")


def _line(row: dict) -> str:
    """A row of JSON, whose last entry is the CRC-32 of the row without it."""
    text = json.dumps(row)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'


def _row(line: bytes) -> dict | None:
    """What `_line` wrote, or None for anything else. Rows of older versions have no CRC-32."""
    if sealed := SEALED.fullmatch(line):
        line = sealed[1] + b"}"
        if f"{zlib.crc32(line):08x}" != sealed[2].decode():
            return None
    try:
        row = json.loads(line)
        known = (type(row["stage"]), type(row["step"])) == (str, int)
        numbers = all(_is_number(value) for name, value in row.items() if name != "stage")
        return row if known and numbers else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) or value in ("nan", "inf", "-inf")


def write_rows(path: Path, rows: list[dict]) -> None:
    """Replaces a `metrics.jsonl`."""
    write_text(path, "".join(map(_line, rows)))


def training_seconds(rows: list[dict], stage: str, step: int) -> float:
    """How long a stage had trained at `step`, from the rows of a `metrics.jsonl`; 0 without rows.

    Without a row of that step, the steps since the last row count at the average rate before it.
    """
    timed = [r for r in rows if r["stage"] == stage and r.get("training_seconds") and r["step"] > 0]
    last = max((r for r in timed if r["step"] <= step), key=lambda r: r["step"], default=None)
    return last["training_seconds"] * step / last["step"] if last else 0.0
