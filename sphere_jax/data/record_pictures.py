"""Pictures with labels in ArrayRecord files of `tf.train.Example`s, read where they are indexed."""

import dataclasses
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import Progress
from sphere_jax.config.options import DataOptions
from sphere_jax.data.array_checks import check_labels
from sphere_jax.data.file_cache import cached
from sphere_jax.data.lazy_pictures import Pictures
from sphere_jax.data.pictures import decode
from sphere_jax.data.record_files import RecordFiles, open_records
from sphere_jax.data.source import Counts
from sphere_jax.data.splitting import every_fifth_of_each_class
from sphere_jax.data.tf_examples import parse_example

IMAGE = ("image", "image/encoded")  # names of the features: TFDS, TensorFlow's own scripts
LABEL = ("label", "image/class/label")
TOGETHER = 64  # records that a thread reads at once


@dataclasses.dataclass(frozen=True, eq=False)
class RecordPictures(Pictures):
    """Pictures of records: `names` are numbers; `title` is what a fingerprint calls them."""

    title: str = ""
    records: RecordFiles | None = None

    def name(self, row: int) -> str:
        return f"picture {self.names[row]} of {self.root}"

    @property
    def listing(self) -> bytes:
        """The title, the number and size of every encoded picture, how resized."""
        return os.fsencode(f"{self.title}\n") + super().listing

    def _read(self, name: int, draws: np.ndarray | None = None) -> np.ndarray:
        record = self.records.one(int(name))
        encoded, _ = image_and_label(record)
        title = f"Picture {int(name)} of {self.root}"
        return decode(io.BytesIO(encoded), title, self.data, draws)


def read_pictures(
    data: DataOptions, train: Sequence[Path], held: Sequence[Path], root: Path, title: str
) -> tuple[RecordPictures, np.ndarray, np.ndarray]:
    """Pictures (N), labels int32 (N,) and held out, boolean (N,), of files of `tf.train.Example`s.

    A record has the bytes of a picture, `image` or `image/encoded`, and an integer `label` or
    `image/class/label`. Nothing is decoded before it is indexed. Without `held` files, every fifth
    of each class is held out. `root` is what error sentences call them, `title` what a fingerprint
    does.

    Raises:
      UserError: records of another kind, or none.
    """
    files = [*train, *held]
    listed = cached("labels", files, lambda: _listed(files))
    counts, labels = listed["counts"], listed["labels"]
    if not len(labels):
        raise UserError(f"{root} holds no images.")
    records = RecordFiles(files, counts, "write it again")
    pictures = RecordPictures(root, np.arange(len(labels)), listed["sizes"], data, title, records)
    labels = check_labels(labels, len(labels), str(root))
    if not held:
        return pictures, labels, every_fifth_of_each_class(labels)
    return pictures, labels, np.arange(len(labels)) >= counts[: len(train)].sum()


def count_pictures(train: Sequence[Path], held: Sequence[Path]) -> Counts:
    """Numbers of records, without reading them. Raises UserError for files of another kind."""
    own = sum(map(_count, train))
    return Counts(own, sum(map(_count, held)) if held else None)


def image_and_label(record: bytes) -> tuple[bytes, int]:
    """Raises ValueError for a record that lacks one of them."""
    features = parse_example(record)
    found = [next((features[n] for n in names if n in features), None) for names in (IMAGE, LABEL)]
    if None in found or not isinstance(found[0][0], bytes) or not isinstance(found[1][0], int):
        has = ", ".join(sorted(features)) or "nothing"
        raise ValueError(f"it has {has}, not an encoded image and an integer label")
    return found[0][0], found[1][0]


def _listed(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Records a file (files,); label and bytes of every picture (N,). Reads all of them once."""
    counts = np.array([_count(file) for file in files], np.int64)
    records = RecordFiles(files, counts, "write it again")
    progress = Progress("labels read, once:", len(records), "a second")

    def read(start: int) -> list[tuple[int, int]]:
        rows = np.arange(start, min(start + TOGETHER, len(records)))
        found = []
        for row, record in zip(rows, records.read(rows), strict=True):
            try:
                image, label = image_and_label(record)
            except ValueError as error:
                file = files[np.searchsorted(np.cumsum(counts), row, side="right")]
                raise UserError(f"{file} cannot be used: of a record, {error}.") from error
            found.append((label, len(image)))
        return found

    rows = []
    with ThreadPoolExecutor() as pool:
        for found in pool.map(read, range(0, len(records), TOGETHER)):
            rows += found
            progress.done(len(rows))
    labels, sizes = np.array(rows, np.int64).reshape(-1, 2).T
    return {"counts": counts, "labels": labels, "sizes": sizes}


def _count(file: Path) -> int:
    try:
        return open_records(file).num_records()
    except RuntimeError as error:
        raise UserError(
            f"{file} cannot be used as ArrayRecord ({error}); write it again, by the command that "
            "wrote it."
        ) from error
