"""What a run tells while it goes: a line on the screen, `metrics.jsonl`, TensorBoard files."""

import contextlib
import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX import SummaryWriter

from sphere_jax.common.files import write_text
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.progress import say


class RunLog:
    """Writes one run's metrics; silent on all processes but the first."""

    def __init__(self, workdir: Path):
        self._path = Path(workdir) / "metrics.jsonl"
        self._board = (
            SummaryWriter(str(Path(workdir) / "tensorboard")) if is_main_process() else None
        )
        self.say = say

    def forget_after(self, stage: str, step: int) -> None:
        """Drops rows that a resumed run will write again."""
        if not is_main_process():
            return
        rows = read_rows(self._path)
        write_rows(self._path, [r for r in rows if r["stage"] != stage or r["step"] <= step])

    def seconds_before(self, stage: str, step: int) -> float:
        return seconds_before(read_rows(self._path), stage, step)

    def write(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        if not is_main_process():
            return
        # JSON has no NaN: a non-finite number is written as its name.
        plain = {k: v if math.isfinite(v) else str(v) for k, v in metrics.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"stage": stage, "step": step, **plain}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(f"{stage}/{name}", value, step)

    def picture(self, stage: str, step: int, name: str, image: np.ndarray) -> None:
        """`image` uint8 (H, W, C)."""
        if is_main_process():
            self._board.add_image(f"{stage}/{name}", image, step, dataformats="HWC")

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`, if it exists; a last line cut off by a kill is left out."""
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


class Stopwatch:
    """Seconds of training, over all starts of a run; stands still before `start` and in `pause`."""

    def __init__(self, seconds: float = 0.0):
        self._seconds, self._since = seconds, None

    @property
    def seconds(self) -> float:
        return self._seconds + (time.monotonic() - self._since if self._since else 0.0)

    def start(self) -> None:
        self._since = time.monotonic()

    @contextlib.contextmanager
    def pause(self):
        self._seconds, running, self._since = self.seconds, self._since is not None, None
        yield
        if running:
            self.start()


def seconds_before(rows: list[dict], stage: str, step: int) -> float:
    """Seconds that a stage had trained at `step`, from the rows of a `metrics.jsonl`.

    Where no row is of that very step, the steps since the last one count at the rate before it.
    """
    timed = [r for r in rows if r["stage"] == stage and r.get("training_seconds") and r["step"] > 0]
    last = max((r for r in timed if r["step"] <= step), key=lambda r: r["step"], default=None)
    return last["training_seconds"] * step / last["step"] if last else 0.0


class Meter:
    """Rate, model FLOP utilisation and time left."""

    def __init__(self, batch_size: int, flops_per_step: float, peak_flops: float):
        self._batch, self._flops, self._peak = batch_size, flops_per_step, peak_flops
        self._start, self._steps = time.monotonic(), 0

    def restart(self) -> None:
        """Leaves out what was not training (a preview, a save)."""
        self._start, self._steps = time.monotonic(), 0

    def step_done(self) -> None:
        self._steps += 1

    def rates(self) -> dict[str, float]:
        """Empty before the first step."""
        if self._steps == 0:
            return {}
        seconds = max(time.monotonic() - self._start, 1e-9)
        per_second = self._steps / seconds
        return {
            "images_per_second": per_second * self._batch,
            "steps_per_second": per_second,
            "model_flop_utilisation": per_second * self._flops / self._peak,
        }


def measure_peak_flops(dtype=jnp.float32, size: int = 2048) -> float:
    """FLOP/s of one matrix product on all devices of this job, the best of five."""

    multiply = jax.jit(lambda a: a @ a)
    a = multiply(jnp.ones((size, size), dtype)).block_until_ready()
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        multiply(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best * jax.device_count()
