"""Image files as an array that is decoded where it is indexed."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from sphere_jax.config.options import DataOptions


def name_of(images: "np.ndarray | Pictures", row: int) -> str:
    """What messages call an image: its file, or its place in an array."""
    return images.name(row) if isinstance(images, Pictures) else f"image {row} of {len(images):,}"


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Image files as an array, uint8 (N, image_size, image_size, channels), read where indexed.

    `pictures[rows]` decodes rows (an array, a slice, a mask or one number) by threads;
    `np.asarray(pictures)` decodes all and needs the memory for it. Indexing raises UserError,
    naming the file, for what cannot be decoded.
    """

    root: Path
    names: np.ndarray  # (N,) paths relative to root, with slashes
    sizes: np.ndarray  # (N,) bytes of each file
    data: DataOptions

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.names), self.data.image_size, self.data.image_size, self.data.channels)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows) -> np.ndarray:
        names = self.names[rows]
        return self._read(names) if np.ndim(names) == 0 else self._read_all(names)

    def cropped(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Random crops of rows (B,), by draws (B, 3) in [0, 1) (`data.pictures.random_crop`)."""
        return self._read_all(self.names[rows], draws)

    def _read_all(self, names: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        from sphere_jax.data.pictures import read_by_threads  # not to need Pillow before

        def read(i: int) -> np.ndarray:
            return self._read(names[i], None if draws is None else draws[i])

        return read_by_threads(read, len(names), self.shape[1:])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def name(self, row: int) -> str:
        """What messages call a picture."""
        return str(self.root / self.names[row])

    def keep(self, rows: np.ndarray) -> "Pictures":
        """Some of the files, in the order of `rows` (numbers or a mask); nothing is read."""
        return dataclasses.replace(self, names=self.names[rows], sizes=self.sizes[rows])

    @property
    def listing(self) -> bytes:
        """Path and size of every file, and how they are resized: what a fingerprint is made of.

        Not their content: reading every byte of ImageNet would cost an hour at every start. A
        file that is replaced by another of equal length goes unnoticed.
        """
        lines = (f"{name}\0{size}" for name, size in zip(self.names, self.sizes, strict=True))
        return os.fsencode("\n".join((self.data.resize, *lines)))

    def _read(self, name: str, draws: np.ndarray | None = None) -> np.ndarray:
        from sphere_jax.data.pictures import decode

        file = self.root / name
        return decode(file, str(file), self.data, draws)
