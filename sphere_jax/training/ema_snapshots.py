"""Snapshots of the averages with power-function profiles, on disk, which `sphere_jax.ema` combines.

A folder beside the checkpoints holds one float32 .safetensors file per width and step, named by
both, with a fingerprint of its tensors and numbers. None is deleted: a profile that ends early in
the run is computed from early snapshots.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32, PyTree
from safetensors import SafetensorError

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError, first_line
from sphere_jax.common.processes import is_main_process
from sphere_jax.config.options import StageOptions
from sphere_jax.data.pipeline import to_host
from sphere_jax.training.ema_profiles import WIDEST, combination, gamma_of
from sphere_jax.weights.opening import open_safetensors
from sphere_jax.weights.stored import fingerprint, write_safetensors
from sphere_jax.weights.tensors import named_leaves


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The average of relative width `sigma_rel` after `step` steps, of which `updates` were applied
    (the others were skipped, see `skip_nonfinite`)."""

    path: Path
    step: int
    updates: int
    sigma_rel: float


FIX = "restore it from a copy, or delete it: averages are then of the others"
LARGEST_ERROR = 0.1  # of a profile, relative; beyond, the file would not be what its name says


def snapshot_folder(checkpoints: Path) -> Path:
    """Beside the checkpoints of a stage."""
    return checkpoints.with_name(f"{checkpoints.name}-ema")


def snapshot_due(options: StageOptions, step: int) -> bool:
    """Whether snapshots are saved after `step`: every `ema_snapshot_every`, and after the last."""
    if not options.ema_profiles:
        return False
    return step == options.steps or step % options.ema_snapshot_every == 0


def snapshot_totals(options: StageOptions, params: PyTree) -> tuple[int, int]:
    """Number of files that the whole stage writes, and their bytes (without headers).

    `params` may be `jax.ShapeDtypeStruct`s.
    """
    if not options.ema_profiles:
        return 0, 0
    steps = -(-options.steps // options.ema_snapshot_every)  # rounded up: the last step counts
    count = steps * len(options.ema_profiles)
    return count, count * 4 * sum(leaf.size for leaf in jax.tree.leaves(params))


def save_snapshots(folder: Path, step: int, updates: int, profiles: dict) -> None:
    """`profiles`: trees by relative width. Every process must call it; the first one writes."""
    for sigma_rel, tree in profiles.items():
        tensors = {name: to_host(leaf) for name, leaf in named_leaves(tree).items()}
        if is_main_process():
            numbers = {"step": step, "updates": updates, "sigma_rel": sigma_rel}
            metadata = {name: str(value) for name, value in numbers.items()}
            metadata["fingerprint"] = _fingerprint(tensors, metadata)
            write_safetensors(folder / f"{_stem(step, sigma_rel)}.safetensors", tensors, metadata)


def delete_snapshots_after(folder: Path, step: int) -> None:
    """Deletes the snapshots that a resumed stage will write again."""
    if is_main_process():
        for path in folder.glob("*.safetensors"):
            written = path.name.split("-")[0]
            if written.isdecimal() and int(written) > step:  # others are not a stage's
                path.unlink()


def read_snapshots(folder: str | os.PathLike) -> list[Snapshot]:
    """All in `folder`, the oldest first. Raises UserError if one is damaged."""
    found = []
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            metadata = open_safetensors(path).metadata() or {}
            numbers = int(metadata["step"]), int(metadata["updates"]), float(metadata["sigma_rel"])
            if path.stem != _stem(numbers[0], metadata["sigma_rel"]):
                raise ValueError(f"it says that it is {_stem(numbers[0], metadata['sigma_rel'])}")
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} is not a snapshot of an average ({error}); {FIX}.") from error
        found.append(Snapshot(path, *numbers))
    return found


def combine(
    snapshots: list[Snapshot], sigma_rel: float, step: int, forced: bool = False
) -> tuple[dict[str, Float32[np.ndarray, "..."]], float]:
    """The tensors by name of the average of width `sigma_rel` after `step`, and its error.

    Summed in float64, one file in memory at a time. The error is that of `combination`.

    Raises:
      UserError: there is no snapshot of this step, one is damaged, the width is out of range, or,
        unless `forced`, the error is above LARGEST_ERROR.
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
    if error > LARGEST_ERROR and not forced:
        tracked = ", ".join(f"{width:g}" for width in sorted({s.sigma_rel for s in used}))
        raise UserError(
            f"--sigma_rel={sigma_rel} is too far from the tracked widths ({tracked}): the profile "
            f"would be off by {100 * error:.2g}%; {_within_reach(t, gamma, updates[step])}, or "
            "--force it."
        )
    total: dict[str, np.ndarray] = {}
    for weight, snapshot in zip(weights, used, strict=True):
        for name, tensor in _tensors(snapshot.path).items():
            part = weight * tensor.astype(np.float64)
            total[name] = total[name] + part if name in total else part
    return {name: tensor.astype(np.float32) for name, tensor in total.items()}, error


def _stem(step: int, sigma_rel: float | str) -> str:
    return f"{step:08d}-{sigma_rel}"


def _fingerprint(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """Of the tensors and of what the file says of them, but for a fingerprint."""
    about = sorted((name, text) for name, text in metadata.items() if name != "fingerprint")
    return fingerprints.of_text(f"{about} {fingerprint(tensors)}")


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """Raises UserError for a file that is not as it was written; older ones do not say."""
    try:
        file = open_safetensors(path)
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); {FIX}.") from error
    noted = metadata.get("fingerprint")
    if noted not in (None, _fingerprint(tensors, metadata)):
        raise UserError(
            f"{path} is damaged: its content does not have the fingerprint in its header; {FIX}."
        )
    return tensors


def _within_reach(t: np.ndarray, gamma: np.ndarray, target_t: int) -> str:
    """The widths that these snapshots give well, in words."""
    widths = np.arange(0.005, WIDEST, 0.005)
    errors = [combination(t, gamma, target_t, gamma_of(width))[1] for width in widths]
    good = widths[np.array(errors) <= LARGEST_ERROR]
    if len(good) == 0:
        return "train with a smaller ema_snapshot_every"
    return f"give {good[0]:g} to {good[-1]:g}"
