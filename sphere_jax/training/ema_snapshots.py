"""Snapshots of the averages with power-function profiles, on disk: what `sphere_jax.ema` combines.

A folder beside the checkpoints, one float32 .safetensors a width and step, named by both. All are
kept: a profile that ends early in the run is made of early ones. `planned` counts them beforehand.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import is_main_process
from sphere_jax.config.options import Stage
from sphere_jax.data.pipeline import to_host
from sphere_jax.training.ema_profiles import combination, gamma_of
from sphere_jax.weights.reading import open_safetensors
from sphere_jax.weights.stored import write_safetensors
from sphere_jax.weights.tensors import named_leaves


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The average of relative width `sigma_rel` after `step` steps, `updates` of them applied."""

    path: Path
    step: int
    updates: int
    sigma_rel: float


def snapshot_folder(checkpoints: Path) -> Path:
    """Beside the checkpoints of a stage."""
    return checkpoints.with_name(f"{checkpoints.name}-ema")


def is_due(settings: Stage, step: int) -> bool:
    """Whether snapshots are taken after `step`: every so many, and after the last."""
    if not settings.ema_profiles:
        return False
    return step == settings.steps or step % settings.ema_snapshot_every == 0


def planned(settings: Stage, params) -> tuple[int, int]:
    """How many files a whole stage will leave, and their bytes (without headers).

    `params` may be shapes.
    """
    if not settings.ema_profiles:
        return 0, 0
    steps = -(-settings.steps // settings.ema_snapshot_every)  # the last counts
    count = steps * len(settings.ema_profiles)
    return count, count * 4 * sum(leaf.size for leaf in jax.tree.leaves(params))


def save_snapshots(folder: Path, step: int, updates: int, profiles: dict) -> None:
    """`profiles`: trees by relative width. Every process takes part; one writes."""
    for sigma_rel, tree in profiles.items():
        tensors = {name: to_host(leaf) for name, leaf in named_leaves(tree).items()}
        if is_main_process():
            noted = {"step": step, "updates": updates, "sigma_rel": sigma_rel}
            path = folder / f"{step:08d}-{sigma_rel}.safetensors"
            write_safetensors(path, tensors, {name: str(value) for name, value in noted.items()})


def forget_snapshots_after(folder: Path, step: int) -> None:
    """Deletes those of a start that was cut off: they will be made again."""
    if is_main_process():
        for path in folder.glob("*.safetensors"):
            if int(path.name.split("-")[0]) > step:
                path.unlink()


def read_snapshots(folder: Path) -> list[Snapshot]:
    """All that `folder` holds, the oldest first. Raises UserError if one is damaged."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            noted = open_safetensors(path).metadata() or {}
            numbers = int(noted["step"]), int(noted["updates"]), float(noted["sigma_rel"])
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} is no snapshot of an average ({error}).") from error
        found.append(Snapshot(path, *numbers))
    return found


def combine(
    snapshots: list[Snapshot], sigma_rel: float, step: int
) -> tuple[dict[str, np.ndarray], float]:
    """The average of width `sigma_rel` at the snapshots' step `step`, by name, and its error.

    Summed in float64, one file in memory at a time. The error is that of `combination`.

    Raises:
      UserError: there is no snapshot of that step, or the width is out of range.
    """
    updates = {snapshot.step: snapshot.updates for snapshot in snapshots}
    if step not in updates:
        known = ", ".join(map(str, sorted(updates))) or "none"
        raise UserError(f"--step={step} has no snapshot; there are: {known}.")
    used = [snapshot for snapshot in snapshots if snapshot.step <= step]
    t = np.array([snapshot.updates for snapshot in used], np.float64)
    try:
        gamma = np.array([gamma_of(snapshot.sigma_rel) for snapshot in used])
        weights, error = combination(t, gamma, updates[step], gamma_of(sigma_rel))
    except ValueError as problem:
        raise UserError(f"--sigma_rel={sigma_rel}: {problem}.") from problem
    total: dict[str, np.ndarray] = {}
    for weight, snapshot in zip(weights, used, strict=True):
        file = open_safetensors(snapshot.path)
        for name in file.keys():  # noqa: SIM118, not a dict
            part = weight * file.get_tensor(name).astype(np.float64)
            total[name] = total[name] + part if name in total else part
    return {name: tensor.astype(np.float32) for name, tensor in total.items()}, error
