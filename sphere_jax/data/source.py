"""What a data set is, a `Split` of two `Source`s, and what a data source is, `DataSource`.

A source gathers a whole batch at once, so the pipeline never loops over single examples.
"""

import dataclasses

import numpy as np

from sphere_jax.common import fingerprints
from sphere_jax.config.options import Config, DataOptions, source_of
from sphere_jax.data.cached_latents import CachedLatents, as_used
from sphere_jax.data.class_names import Classes
from sphere_jax.data.lazy_pictures import Pictures


@dataclasses.dataclass(frozen=True)
class Source:
    """Named arrays of equal length: `images` uint8 (N,H,W,C) or `latents` (N,h,w,d); `labels`.

    Of latents that are sampled anew whenever they are used, `latents` are means and `latent_std`,
    of the same shape, their standard deviations (`CachedLatents` hold both).

    `labels` are in memory. The others may be read where they are indexed, from a memory-mapped
    file, from `Pictures` or from `CachedLatents`: use their `shape`, `dtype`, `len` and rows, a
    batch at a time.
    """

    arrays: dict[str, np.ndarray | Pictures | CachedLatents]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels(self) -> np.ndarray:
        """int32 (N,)."""
        return self.arrays["labels"]

    @property
    def in_memory(self) -> bool:
        """Whether reading examples touches no files."""
        lazy = (Pictures, CachedLatents, np.memmap)
        return not any(isinstance(array, lazy) for array in self.arrays.values())

    def read(
        self, indices: np.ndarray, mirrored: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The examples at `indices` (B,), as arrays with a leading axis B; latents are float32.

        Images and cached latents are mirrored left to right where `mirrored` (B,) is true; latents
        in memory have no mirror image.
        """
        return as_used(self.stored(indices, mirrored))

    def stored(
        self,
        indices: np.ndarray,
        mirrored: np.ndarray | None = None,
        crops: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """`read` before `as_used`, which a jitted function can apply on the device instead: half
        the bytes for latents of 16 bits, and no work for the host. `crops` (B, 3) in [0, 1) choose
        random crops of pictures in files."""
        found = {}
        for name, array in self.arrays.items():
            if isinstance(array, CachedLatents):
                found |= array.stored_examples(indices, mirrored)
                continue
            if isinstance(array, np.memmap):
                found[name] = rows_of(array, indices)
            elif isinstance(array, Pictures) and crops is not None:
                found[name] = array.cropped(indices, crops)
            else:
                found[name] = array[indices]
            if name == "images" and mirrored is not None:
                found[name][mirrored] = found[name][mirrored][:, :, ::-1]
        return found

    @property
    def fingerprint(self) -> str:
        """Of every array: which data this was.

        Of image files, of their paths and sizes alone (`Pictures.listing`); of cached latents, of
        how they were made and their CRC-32.
        """
        return fingerprints.of_arrays((name, self.arrays[name]) for name in sorted(self.arrays))

    def fingerprint_like(self, other: str) -> str:
        """The fingerprint of this data, of the kind of one that may be of an older version."""
        return self.fingerprint

    @property
    def dates(self) -> dict[str, str]:
        """When the files last changed whose content a fingerprint is not made of in full."""
        return {}


def rows_of(array: np.memmap, indices: np.ndarray) -> np.ndarray:
    """`array[indices]` in memory; row by row, in half the time where rows are large."""
    plain = np.asarray(array)
    found = np.empty((len(indices), *plain.shape[1:]), plain.dtype)
    for place, row in enumerate(indices.tolist()):
        found[place] = plain[row]
    return found


@dataclasses.dataclass(frozen=True)
class Split:
    """A data set in two parts that never mix."""

    train: Source
    heldout: Source


@dataclasses.dataclass(frozen=True)
class Counts:
    """Numbers of examples. heldout: None where it depends on labels that were not read."""

    train: int
    heldout: int | None


class DataSource:
    """Where examples come from: a file of data/sources/, found by its name.

    `config.data.source="cifar10"` is `SOURCE` of `data/sources/cifar10.py`; a name with a dot is a
    module of another package.

    holds_images: examples are images; else they are latents.
    holds_flips: examples are there mirrored, too (latents whose flips were encoded).
    made_of_images: its latents were encoded from images that may be elsewhere (`images_behind`).
    read_in_batches: examples are read where they are indexed and need no memory.
    path_may_be_a_name: `config.data.path` need not be a file or folder.
    """

    holds_images = True
    holds_flips = False
    made_of_images = False
    read_in_batches = False
    path_may_be_a_name = False

    def check(self, config: Config) -> None:
        """Raises UserError for options that do not fit the rest of the config."""

    def load(self, data: DataOptions) -> Split:
        """The data set, split, checked and at its size. `data.num_classes=0` accepts any number of
        classes. Raises UserError."""
        raise NotImplementedError

    def classes(self, data: DataOptions) -> Classes:
        """Its classes and their names; where `data.num_classes` is given, that many are assumed.

        A source that knows them without reading its examples replaces this. Raises UserError.
        """
        if data.num_classes:
            return Classes(data.num_classes)
        parts = vars(self.load(data)).values()  # labels that run from 1 are shifted there
        return Classes(max(int(part.labels.max()) for part in parts) + 1)

    def load_for(self, config: Config) -> Split:
        """`load` for a run: latents are checked against `config.tokenizer`, which they were made
        with, and normalised by its statistics. Raises UserError."""
        return self.load(config.data)

    def counts(self, config: Config) -> Counts:
        """How many examples a run would have, checked as far as that is quick.

        A source whose `load_for` reads more than folders and headers replaces this. Raises
        UserError.
        """
        split = self.load_for(config)
        return Counts(len(split.train), len(split.heldout))

    def images_behind(self, config: Config) -> DataOptions:
        """The options of the images that runs are scored against. Raises UserError where there are
        none."""
        return config.data

    def made_of(self, data: DataOptions) -> dict[str, str]:
        """Of a source `made_of_images`: the fingerprints that its images had, "train" and
        "heldout". Raises UserError if there are no such latents."""
        raise NotImplementedError


def load(data: DataOptions) -> Split:
    """The data set that a config names, split, checked and at its size.

    Raises:
      UserError: the file or package is missing, or what it holds is not what the config says.
    """
    return source_of(data).load(data)
