"""Latents of a cache, read where they are indexed; of 16 bits until a device has them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.data.record_files import RecordFiles

PREPARE = "python -m sphere_jax.prepare latents"
NAMES = ("latents", "latent_std")  # of the arrays of latents in a batch
SHIFT, SCALE = "latent_shift", "latent_scale"  # of the statistics beside them, (B, 1, 1, d)


@dataclasses.dataclass(frozen=True, eq=False)
class CachedLatents:
    """The latents of one part of a cache as an array, float32 (N, h, w, d), read where indexed.

    `latents[rows]` (an array, a slice, a mask or one number) are those of the images as they are,
    `latents.take(rows, mirrored)` of some of them mirrored, normalised by `mean` and `std` (d,) as
    they are read; of stored `moments`, they are the means. `stored_examples` leaves them in the
    type of the files. Reading raises UserError, naming the shard, for one that is damaged.
    """

    records: RecordFiles  # two an image
    latent_shape: tuple[int, int, int]
    stored: np.dtype
    listing: bytes  # what a fingerprint is made of: how it was made, and the CRC-32 of every shard
    mean: np.ndarray | float = 0.0
    std: np.ndarray | float = 1.0
    moments: bool = False  # a record holds mean and standard deviation
    sampled: bool = False  # and an example has both

    dtype = np.dtype(np.float32)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), *self.latent_shape)

    def __len__(self) -> int:
        return len(self.records) // 2

    def __getitem__(self, rows) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        found = self.take(np.atleast_1d(rows), np.zeros(rows.size, bool))
        return found if rows.ndim else found[0]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, rows: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """Latents (B, h, w, d) of images `rows` (B,), mirrored where `mirrored` (B,) says so."""
        return as_used(self.stored_examples(rows, mirrored))["latents"]

    def stored_examples(
        self, rows: np.ndarray, mirrored: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """`latents` (B, h, w, d) as they are stored, `latent_std` of the same shape if `sampled`,
        and the statistics, if there are any, by which `as_used` normalises them."""
        mirrored = np.zeros(len(rows), bool) if mirrored is None else mirrored
        used = 1 + self.sampled  # of the arrays in a record
        found = np.empty((used, len(rows), *self.latent_shape), self.stored)
        shape = (1 + self.moments, *self.latent_shape)
        for place, row in enumerate((2 * rows + mirrored).tolist()):
            record = self.records.one(row)
            found[:, place] = np.frombuffer(record, self.stored).reshape(shape)[:used]
        examples = dict(zip(NAMES, found, strict=False))
        if not (np.isscalar(self.mean) and np.isscalar(self.std)):
            everywhere = (len(rows), 1, 1, self.latent_shape[-1])
            for name, values in ((SHIFT, self.mean), (SCALE, self.std)):
                examples[name] = np.broadcast_to(np.asarray(values, np.float32), everywhere)
        self._check_finite(rows, examples)
        return examples

    def _check_finite(self, rows: np.ndarray, examples: dict[str, np.ndarray]) -> None:
        """Raises UserError for latents that are not finite once they are normalised."""
        if all(
            surely_finite(examples[name], self.mean, self.std) for name in NAMES[: 1 + self.sampled]
        ):
            return
        used = as_used(examples)
        wrong = np.any([not_finite(used[name]) for name in used], axis=0)
        if wrong.any():
            row = int(rows[np.flatnonzero(wrong)[0]])
            file = self.records.file_of(2 * row)
            raise UserError(
                f"The latents of image {row} in {file} are not finite, normalised; delete the file "
                f"and run {PREPARE} again, or check config.tokenizer.pretrained_statistics."
            )


def as_used(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch with its latents in float32, normalised by the statistics beside them, which are then
    left out. Of numpy arrays, or of JAX arrays inside a jitted function: the bits are the same."""
    used = {name: array for name, array in batch.items() if name not in (SHIFT, SCALE)}
    for name in NAMES:
        if name in batch:
            latents = batch[name].astype(np.float32)
            if name == "latents" and SHIFT in batch:
                latents = latents - batch[SHIFT]
            if SCALE in batch:  # XLA would multiply by the reciprocal of a plain broadcast
                latents = latents / (batch[SCALE] + 0.0 * latents)
            used[name] = latents
    return used


def surely_finite(stored: np.ndarray, mean: np.ndarray | float, std: np.ndarray | float) -> bool:
    """Whether all of `stored` are finite, and stay so normalised.

    Floats of one sign are in the order of their bits, so two maxima of integers find the largest
    magnitude, in a fraction of the time of a cast to float32.
    """
    size = stored.dtype.itemsize
    ends = [stored.view(f"{kind}{size}").max(initial=0).reshape(1) for kind in "iu"]
    largest = np.abs(np.concatenate([end.view(stored.dtype) for end in ends])).astype(float).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = (largest + np.abs(mean).max()) / np.abs(std).min()
    return bool(bound < np.finfo(np.float32).max / 2)


def not_finite(latents: np.ndarray) -> np.ndarray:
    """Boolean (N,): which rows of (N, ...) hold NaN or infinity."""
    return ~np.isfinite(latents).reshape(len(latents), -1).all(1)
