"""ArrayRecord files as a side: records are `tf.train.Example`s with an encoded picture."""

import dataclasses
import io
import os
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.data.pictures import decoded
from sphere_jax.data.record_files import RecordFiles, open_records
from sphere_jax.data.record_pictures import IMAGE, LABEL
from sphere_jax.data.tf_examples import parse_example
from sphere_jax.evaluation.sides.base import Pictures, Pixels, Side

PATTERN = "*.array_record*"


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedRecords(Pictures):
    """Pictures of records, by their number."""

    name: str
    records: RecordFiles

    def __len__(self) -> int:
        return len(self.records)

    def read(self, row: int) -> Pixels:
        (encoded,) = self._feature(row, IMAGE) or (None,)
        if not isinstance(encoded, bytes):
            raise UserError(f"Record {row} of {self.name} has no encoded image, '{IMAGE[0]}'.")
        return decoded(io.BytesIO(encoded), f"Picture {row} of {self.name}", 3, np.asarray)

    def label(self, row: int) -> int | None:
        """Its class, if it has one."""
        (label,) = self._feature(row, LABEL) or (None,)
        return label if isinstance(label, int) else None

    def _feature(self, row: int, names: tuple[str, ...]) -> list | None:
        record = self.records.one(row)
        try:
            features = parse_example(record)
        except ValueError as error:
            raise UserError(f"Record {row} of {self.name} cannot be used ({error}).") from error
        return next((features[name][:1] for name in names if features.get(name)), None)


def holds_records(path: Path) -> bool:
    """Whether it is an ArrayRecord file, or a folder with some."""
    if path.is_dir():
        return any(file.is_file() for file in path.glob(PATTERN))
    return ".array_record" in path.name


def record_side(path: str | os.PathLike) -> Side:
    """Of a file, or of all ArrayRecord files of a folder in the order of their names.

    Raises:
      UserError: a file that is damaged or of another kind.
    """
    given = Path(path)
    files = sorted(file for file in given.glob(PATTERN) if file.is_file())
    files = files if given.is_dir() else [given]
    counts = []
    for file in files:
        try:
            counts.append(open_records(file).num_records())
        except RuntimeError as error:
            raise UserError(f"{file} cannot be used as ArrayRecord ({error}).") from error
    if not sum(counts):
        raise UserError(f"{given} holds no records.")
    pictures = EncodedRecords(os.fspath(path), RecordFiles(files, counts, "write it again"))
    labels = None
    if pictures.label(0) is not None:
        found = [pictures.label(row) for row in range(len(pictures))]
        if None not in found:
            labels = np.array(found, np.int32)
    return Side(os.fspath(path), "ArrayRecord files", pictures, labels)
