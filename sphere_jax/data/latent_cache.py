"""Latents of a data set in files: of every image, and of its mirror image (left to right).

C/plan.json                 what is being written; a folder started with another plan is refused
C/labels.npz                int32 `train` and `heldout`
C/classes.json              names of classes, if the images have them
C/train-00000.arrayrecord   record 2 i: latents (h, w, d) of the shard's image i, 2 i + 1: mirrored;
                            with `moments` in the plan, mean and standard deviation (2, h, w, d)
C/train-00000.json          written after its shard: images, bytes, CRC-32, statistics
C/index.json                written last: the plan, all shards, statistics of the whole, and which
                            images it was made of (`source` and `path`), to score against

A shard is written whole or not at all; several processes may write into one folder, each of them
other shards.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import crc32, make_folder, read_json, write_json, write_npz
from sphere_jax.data.cached_latents import PREPARE, CachedLatents, not_finite
from sphere_jax.data.moments import drawn, merged, moments_of, statistics_of
from sphere_jax.data.npz_files import read_npz
from sphere_jax.data.record_files import RecordFiles, whole_records
from sphere_jax.data.shards import (
    PARTS,
    Shard,
    check_not_foreign,
    check_plan,
    first_difference,
    shards_of,
)

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}
AGAIN = f"delete it and run {PREPARE} again, which writes it anew"
# Of the JSON files, as far as they are used.
SHARD = {"images": int, "bytes": int, "crc32": int}
LISTED = SHARD | {"name": lambda name: isinstance(name, str) and "/" not in name}
INDEX = {
    "made_with": {"config.data.num_classes?": int},
    "latent_shape": lambda shape: [type(side) for side in shape] == [int] * 3 and min(shape) > 0,
    "dtype": lambda name: name in tuple(DTYPES),
    "shards": {part: [LISTED] for part in PARTS},
    "images?": {"source?": str, "path?": str},  # older caches lack these
    "data?": {part: str for part in PARTS},
    "moments?": bool,
}
MOMENTS = {"tokens": int, "norm_mean": [float], "norm_squares": [float]}
MOMENTS |= {"channel_mean": [float], "channel_squares": [float]}


class CacheWriter:
    """Fills a folder. `plan` (JSON) holds `made_with`, `latent_shape`, `dtype` and `shard_size`,
    and whatever else the latents depend on; `moments` if means and standard deviations are stored.
    `images` is where the images are; they may have been moved when writing into a folder is
    resumed.

    Raises:
      UserError: the folder cannot be written, was started with another plan or holds other files.
    """

    def __init__(
        self,
        folder: Path,
        plan: dict[str, Any],
        labels: Mapping[str, np.ndarray],
        images: Mapping[str, str] | None = None,
    ):
        self.folder, self.plan, self._labels = folder, json.loads(json.dumps(plan)), labels
        self._images = dict(images or {})
        check_not_foreign(folder, "plan.json", "index.json")
        make_folder(folder)
        before = read_json(folder / "plan.json", AGAIN)
        written = [file for part in PARTS for file in folder.glob(f"{part}-*.json")]
        # Until a shard is there, the plan may change.
        if before is not None and written:
            check_plan(folder, before, self.plan)

    def write_plan(self) -> None:
        """Writes plan and labels; for one process to call."""
        write_json(self.folder / "plan.json", self.plan, sealed=True)
        write_npz(self.folder / "labels.npz", {part: self._labels[part] for part in PARTS})

    @property
    def shards(self) -> list[Shard]:
        counts = {part: len(self._labels[part]) for part in PARTS}
        return shards_of(counts, self.plan["shard_size"])

    def is_finished(self, shard: Shard) -> bool:
        """Whether its file is complete and its content has the CRC-32 that was noted."""
        file = self.folder / f"{shard.name}.arrayrecord"
        record = read_json(self.folder / f"{shard.name}.json", AGAIN, SHARD)
        if record is None or not file.is_file() or file.stat().st_size != record["bytes"]:
            return False
        return record["images"] == shard.stop - shard.start and crc32(file) == record["crc32"]

    def write(self, shard: Shard, batches: Iterable[np.ndarray]) -> None:
        """`batches` are float32 (B, 2, h, w, d) of its images in order, as they are and mirrored;
        (B, 2, 2, h, w, d) with `moments`. The statistics are then those of one sample of each.

        Raises:
          UserError: a latent is not a finite number of the cache's type, or the disk is full.
        """
        dtype, images, moments = DTYPES[self.plan["dtype"]], 0, None
        rng = np.random.default_rng([PARTS.index(shard.part), shard.number])
        file = self.folder / f"{shard.name}.arrayrecord"
        with whole_records(file) as add:
            for latents in batches:
                with np.errstate(over="ignore"):
                    stored = latents.astype(dtype)
                check_finite(stored, latents, shard, images)
                add(record.tobytes() for record in stored.reshape(-1, *stored.shape[2:]))
                used = drawn(stored, rng) if self.plan.get("moments") else stored
                moments, images = merged(moments, moments_of(used)), images + len(stored)
        record = {"images": images, "bytes": file.stat().st_size, "crc32": crc32(file)}
        record |= {"moments": moments}
        write_json(self.folder / f"{shard.name}.json", record, sealed=True)

    def write_index(self, write: bool = True) -> dict[str, Any]:
        """The index, once all shards are there; for one process to `write`."""
        found: dict[str, list] = {part: [] for part in PARTS}
        moments = None
        for shard in self.shards:
            file = self.folder / f"{shard.name}.json"
            record = read_json(file, AGAIN, SHARD | {"moments": MOMENTS})
            added = record.pop("moments")
            moments = merged(moments, added) if shard.part == "train" else moments
            found[shard.part].append({"name": shard.name, **record})
        index = {**self.plan, "images": self._images}
        index |= {"statistics": statistics_of(moments), "shards": found}
        if write:
            write_json(self.folder / "index.json", index, sealed=True)
        return index


def read_cache(folder: str | os.PathLike) -> dict[str, tuple[CachedLatents, np.ndarray]]:
    """Latents and labels int32 (N,) of "train" and "heldout". Only the index is read.

    Raises:
      UserError: the cache is not finished, or not all of it is here.
    """
    folder = Path(folder)
    index = read_index(folder)
    labels = read_npz(str(folder / "labels.npz"), PARTS)
    made = {key: index[key] for key in ("made_with", "latent_shape", "dtype")}
    moments = index.get("moments", False)  # older caches hold means only
    made |= {"moments": True} if moments else {}
    parts = {}
    for part in PARTS:
        shards = index["shards"][part]
        files = [folder / f"{shard['name']}.arrayrecord" for shard in shards]
        for file, shard in zip(files, shards, strict=True):
            if not file.is_file() or file.stat().st_size != shard["bytes"]:
                raise UserError(f"{file} is missing or cut off; run {PREPARE} again.")
        images = [shard["images"] for shard in shards]
        if sum(images) != len(labels[part]):
            raise UserError(f"{folder / 'labels.npz'} is of another cache; run {PREPARE} again.")
        latents = CachedLatents(
            RecordFiles(files, [2 * count for count in images], f"run {PREPARE} again"),
            latent_shape=tuple(index["latent_shape"]),
            stored=DTYPES[index["dtype"]],
            listing=json.dumps([made, [s["crc32"] for s in shards]], sort_keys=True).encode(),
            moments=moments,
        )
        parts[part] = (latents, labels[part])
    return parts


def read_index(folder: str | os.PathLike) -> dict[str, Any]:
    """What `index.json` holds. Raises UserError if there is no finished cache in `folder`."""
    folder = Path(folder)
    index = read_json(folder / "index.json", AGAIN, INDEX)
    if index is None:
        started = (folder / "plan.json").is_file()
        state = "is a latent cache that is not finished" if started else "holds no latent cache"
        raise UserError(f"{folder} {state}; run {PREPARE} --out={folder}.")
    return index


def check_cache(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Raises UserError if the latents in `folder` were made with other values than these."""
    if found := first_difference(read_index(folder)["made_with"], dict(made_with)):
        key, stored, now = found
        raise UserError(
            f"{folder} holds latents made with {key}={stored!r}, not {now!r}; give the config that "
            f"made them, or run {PREPARE} with this one into another folder."
        )


def check_moments(folder: Path) -> None:
    """Raises UserError if the cache in `folder` holds nothing to sample from."""
    if not read_index(folder).get("moments"):
        raise UserError(
            f"{folder} holds no standard deviations, which config.tokenizer.latents='sample' "
            f"needs: run {PREPARE} with that option into another folder, or set it to 'mean'."
        )


def check_finite(stored: np.ndarray, latents: np.ndarray, shard: Shard, before: int) -> None:
    """Raises UserError for latents (B, 2, h, w, d) that are not finite, or no longer once stored;
    `before` images of the shard precede them."""
    wrong = np.flatnonzero(not_finite(latents))
    if len(wrong):
        image = shard.start + before + wrong[0]
        raise UserError(
            f"The tokenizer gives latents that are not finite for image {image} of the part "
            f"'{shard.part}' ({shard.name}); check its weights, or leave the image out."
        )
    if not np.isfinite(stored.astype(np.float32)).all():
        raise UserError(
            f"Latents reach {np.abs(latents).max():.3g}, more than {stored.dtype} holds; give "
            "--dtype=bfloat16 or float32."
        )
