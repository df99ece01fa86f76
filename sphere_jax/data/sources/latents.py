"""Latents of another program: a folder with `latents.npy` (N,h,w,d) and `labels.npy` (N,)."""

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import in_bytes
from sphere_jax.common.progress import log
from sphere_jax.config.checks import check
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.data.array_checks import check_labels
from sphere_jax.data.cached_latents import not_finite, surely_finite
from sphere_jax.data.class_names import Classes, read_classes
from sphere_jax.data.file_cache import cached
from sphere_jax.data.npz_files import open_npy
from sphere_jax.data.source import Counts, DataSource, Source, Split
from sphere_jax.data.splitting import checked_labels, every_fifth_of_each_class

LATENTS = ("latents.npy", "labels.npy")
TRIED = 256  # examples that are read at the start


class Latents(DataSource):
    """Already normalised per channel (arXiv 2605.15193; docs/systems/spherical_flow.md#pitfalls),
    and memory-mapped.

    Held out are `test_latents.npy` and `test_labels.npy`, or, without them, every fifth of each
    class.
    """

    holds_images = False

    def check(self, config: Config) -> None:
        check(
            not config.tokenizer_class.decodes,
            "config.data.source='latents' and config.tokenizer.name='precomputed' go together.",
        )

    def classes(self, data: DataOptions) -> Classes:
        """Named by `classes.json` in the folder."""
        return read_classes(Path(data.path), data.num_classes) or super().classes(data)

    def load(self, data: DataOptions) -> Split:
        folder = Path(data.path)
        latents, labels = _arrays(folder, data.path, "")
        arrays, files = {"latents": latents, "labels": labels}, _files(folder, "")
        if not any(file.exists() for file in _files(folder, "test_")):
            held = every_fifth_of_each_class(labels)
            arrays["labels"] = checked_labels(labels, held, data)
            return Split(
                IndexedSource(arrays, np.flatnonzero(~held), files),
                IndexedSource(arrays, np.flatnonzero(held), files),
            )
        test, test_labels = _arrays(folder, data.path, "test_")
        if test.shape[1:] != latents.shape[1:]:
            raise UserError(
                f"{folder} holds latents of shape {latents.shape[1:]} and held-out ones of shape "
                f"{test.shape[1:]}; encode both alike."
            )
        both = np.concatenate([labels, test_labels])
        both = checked_labels(both, np.arange(len(both)) >= len(labels), data)
        arrays["labels"] = both[: len(labels)]
        heldout = {"latents": test, "labels": both[len(labels) :]}
        return Split(
            IndexedSource(arrays, np.arange(len(labels)), files),
            IndexedSource(heldout, np.arange(len(test_labels)), _files(folder, "test_")),
        )

    def load_for(self, config: Config) -> Split:
        split = self._fitting(config)
        for part in (split.train, split.heldout):
            part.stored(np.linspace(0, len(part) - 1, min(TRIED, len(part))).astype(int))
        for latents, _ in sorted({split.train.files, split.heldout.files}):
            _say_how_known(latents)
        return split

    def counts(self, config: Config) -> Counts:
        split = self._fitting(config)
        return Counts(len(split.train), len(split.heldout))

    def _fitting(self, config: Config) -> Split:
        """Of the shape that the config says. Raises UserError."""
        split = self.load(config.data)
        stored = split.train.arrays["latents"].shape[1:]
        if stored != config.tokenizer.latent_shape:
            raise UserError(
                f"{config.data.path} holds latents of shape {stored} but "
                f"config.tokenizer.latent_shape={config.tokenizer.latent_shape}."
            )
        return split

    def images_behind(self, config: Config) -> DataOptions:
        raise UserError(
            "This run's data are latents, and samples can only be scored against images; draw "
            "sphere_jax.sample --out=F.npz and score --samples=F.npz against --reference=D.npz."
        )


@dataclasses.dataclass(frozen=True)
class IndexedSource(Source):
    """Some rows of arrays that are too large to copy, memory-mapped from `files`."""

    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        return self.arrays["labels"][self.rows]

    def stored(self, indices, mirrored=None) -> dict[str, np.ndarray]:
        """Raises UserError, naming the example, for latents that are NaN or infinite."""
        rows = self.rows[indices]
        found = super().stored(rows, mirrored)
        if not surely_finite(found["latents"], 0.0, 1.0):
            for wrong in np.flatnonzero(not_finite(found["latents"]))[:1]:
                raise UserError(
                    f"Example {rows[wrong]} of {self.files[0]} is not finite (NaN or infinity); "
                    "encode it again."
                )
        return found

    def __getstate__(self) -> dict:
        """For another process, which maps the file itself: a memory map would go as its content."""
        labels = {name: array for name, array in self.arrays.items() if name != "latents"}
        return self.__dict__ | {"arrays": labels}

    def __setstate__(self, state: dict) -> None:
        arrays = {"latents": open_npy(state["files"][0]), **state["arrays"]}
        self.__dict__.update(state | {"arrays": arrays})

    @property
    def fingerprint(self) -> str:
        """Of the size and sampled blocks of `latents.npy` (`fingerprints.of_sampled_file`), of all
        labels and of the rows. Not of dates: copies have others."""
        labels = fingerprints.of_arrays([("labels", self.arrays["labels"])])
        parts = [fingerprints.of_sampled_file(self.files[0]), labels, self.rows.tolist()]
        return fingerprints.OF_SAMPLES + fingerprints.of_text(json.dumps(parts))

    def fingerprint_like(self, other: str) -> str:
        """Runs of older versions recorded one of every byte: for them the files are read once, and
        the digest is cached until a path, a size or a time of change differs
        (`file_cache.cached`)."""
        found = self.fingerprint
        if fingerprints.same_kind(found, other):
            return found
        whole, latents = super(), self.files[0]
        kind = "latents" if self.arrays["labels"].any() else "latents_of_one_class"

        def read() -> dict[str, np.ndarray]:
            log(f"{latents}: read whole, once: the run is of a version that recorded every byte")
            return {"digest": np.array(whole.fingerprint)}

        found = cached(kind, self.files, read)
        return fingerprints.of_text(str(found["digest"]) + str(self.rows.tolist()))

    @property
    def dates(self) -> dict[str, str]:
        return {self.files[0].name: _changed(self.files[0])}


def _changed(file: Path) -> str:
    """When a file was last changed, to the second."""
    seconds = int(file.stat().st_mtime)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _say_how_known(file: Path) -> None:
    size, words = file.stat().st_size, "its content"
    if size > fingerprints.SAMPLED * fingerprints.BLOCK:
        words = f"its size and {fingerprints.SAMPLED} sampled blocks, and not read whole"
    log(f"{file}: {in_bytes(size)}, last changed {_changed(file)}; known by {words}")


def _files(folder: Path, prefix: str) -> tuple[Path, ...]:
    return tuple(folder / f"{prefix}{name}" for name in LATENTS)


def _arrays(folder: Path, path: str, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Latents, memory-mapped, and labels. Raises UserError."""
    files = _files(folder, prefix)
    for file in files:
        if not file.is_file():
            raise UserError(
                f"config.data.path='{path}' has no {file.name}; it must be a folder with "
                f"{prefix}latents.npy (N,h,w,d) and {prefix}labels.npy (N,)."
            )
    latents, labels = open_npy(files[0]), open_npy(files[1], in_memory=True)
    if latents.ndim != 4 or len(latents) == 0 or not np.issubdtype(latents.dtype, np.floating):
        raise UserError(
            f"{folder} holds {latents.dtype} latents of shape {latents.shape}; they must be "
            "floats (N,h,w,d) with N > 0."
        )
    return latents, check_labels(labels, len(latents), str(folder))


SOURCE = Latents()
