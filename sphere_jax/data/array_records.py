"""ArrayRecord files: read by number, and those of `tf.train.Example`s as pictures with labels."""

import contextlib
import dataclasses
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json, temporary_beside
from sphere_jax.common.progress import Progress
from sphere_jax.config.options import Data
from sphere_jax.data.array_checks import check_labels, every_fifth_of_each_class
from sphere_jax.data.file_cache import kept
from sphere_jax.data.folders import Pictures
from sphere_jax.data.pictures import decode
from sphere_jax.data.tf_examples import parse_example

IMAGE = ("image", "image/encoded")  # what the features are called: TFDS, TensorFlow's own scripts
LABEL = ("label", "image/class/label")
HELD_OUT = ("heldout", "validation", "val", "test")  # the first that a folder has
PLAN = "images.json"  # what `sphere_jax.prepare images` is to write
OPEN_FILES = 256  # at a time: a process may open some thousand files, often not more
RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"  # reading ahead is for whole files
TOGETHER = 64  # records that a thread reads at once


class RecordFiles:
    """The records of files by number, those of the first file first; for threads to share.

    `counts` are records a file. `mend` ends the sentence about a damaged one.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int], mend: str):
        self._files, self._mend = tuple(files), mend
        self._starts = np.cumsum([0, *counts])
        self._readers, self._lock = {}, threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: np.ndarray) -> list[bytes]:
        """Records `rows` (B,). Raises UserError, naming the file, for one that is damaged."""
        found: list = [b""] * len(rows)
        files = np.searchsorted(self._starts, rows, side="right") - 1
        for file in np.unique(files):
            places = np.flatnonzero(files == file)
            numbers = (rows[places] - self._starts[file]).tolist()
            try:
                records = self._reader(file).read(numbers)
            except RuntimeError as error:  # records carry checksums of their own
                raise UserError(
                    f"{self._files[file]} is damaged ({error}); {self._mend}."
                ) from error
            for place, record in zip(places, records, strict=True):
                found[place] = record
        return found

    def _reader(self, file: int):
        with self._lock:
            if file not in self._readers:
                if len(self._readers) == OPEN_FILES:  # closed once no thread reads it any more
                    del self._readers[next(iter(self._readers))]
                self._readers[file] = open_records(self._files[file])
            return self._readers[file]


def open_records(file: Path):
    """A reader. Raises RuntimeError for what is no whole ArrayRecord file."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(file), RANDOM_ACCESS)
    if not reader.ok():  # which says "0 records" otherwise
        raise RuntimeError("it is cut off, or of another kind")
    return reader


@contextlib.contextmanager
def whole_records(file: Path) -> Iterator[Callable[[Iterable[bytes]], None]]:
    """An ArrayRecord file that is there whole, or not at all: gives what adds records to it.

    Raises:
      UserError: the file cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    temporary, count = temporary_beside(file), 0
    with _writing(file):
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")

    def add(records: Iterable[bytes]) -> None:
        nonlocal count
        with _writing(file):
            for record in records:
                writer.write(record)
                count += 1

    try:
        yield add
        with _writing(file):
            writer.close()
            # Neither opening nor closing tells of a file that could not be written.
            if open_records(temporary).num_records() != count:
                raise OSError("not all of it was written")
            os.replace(temporary, file)
    finally:
        if temporary.is_file():
            temporary.unlink()


@contextlib.contextmanager
def _writing(file: Path):
    """Raises UserError where a file cannot be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(f"Cannot write {file} ({error}).") from error


@dataclasses.dataclass(frozen=True, eq=False)
class RecordPictures(Pictures):
    """Pictures of records: `names` are numbers; `title` is what a fingerprint calls them."""

    title: str = ""
    records: RecordFiles | None = None

    @property
    def listing(self) -> bytes:
        """The title, the number and size of every encoded picture, how resized."""
        return os.fsencode(f"{self.title}\n") + super().listing

    def _read(self, name: int) -> np.ndarray:
        (record,) = self.records.read(np.array([name]))
        encoded, _ = image_and_label(record)
        return decode(io.BytesIO(encoded), f"Picture {int(name)} of {self.root}", self.data)


def read_array_record(data: Data) -> tuple[RecordPictures, np.ndarray, np.ndarray]:
    """The images of a folder of ArrayRecord files (N), labels int32 (N,), held out, boolean (N,).

    Records of `train*.array_record*`, and of `heldout*`, `validation*`, `val*` or `test*` to hold
    out, or, without these, every fifth of each class. A record is a `tf.train.Example` with the
    bytes of a picture, `image` or `image/encoded`, and an integer `label` or `image/class/label`.
    Nothing is decoded before it is indexed.

    Raises:
      UserError: no such folder or files, not all of them, or records of another kind.
    """
    folder = Path(data.path)
    if not data.path or not folder.is_dir():
        raise UserError(f"There is no folder '{data.path}'; config.data.path must be one.")
    found = {part: sorted(folder.glob(f"{part}*.array_record*")) for part in ("train", *HELD_OUT)}
    if not found["train"]:
        raise UserError(f"{folder} has no train*.array_record; python -m sphere_jax.prepare images "
                        "writes such files.")  # fmt: skip
    held = next((found[part] for part in HELD_OUT if found[part]), [])
    pictures, labels, is_held = read_pictures(data, found["train"], held, folder, title="")
    check_whole(folder, len(labels))
    return pictures, labels, is_held


def check_whole(folder: Path, found: int) -> None:
    """Raises UserError if `sphere_jax.prepare images` was to write more into `folder`."""
    plan = read_json(folder / PLAN)
    if plan is not None and (wanted := sum(plan["images"].values())) != found:
        raise UserError(
            f"{folder} holds {found:,} of {wanted:,} images; run python -m sphere_jax.prepare "
            "images again, which goes on."
        )


def read_pictures(
    data: Data, train: Sequence[Path], held: Sequence[Path], root: Path, title: str
) -> tuple[RecordPictures, np.ndarray, np.ndarray]:
    """`read_array_record` of given files; `root` is what sentences call them."""
    files = [*train, *held]
    listed = kept("labels", files, lambda: _listed(files))
    counts, labels = listed["counts"], listed["labels"]
    if not len(labels):
        raise UserError(f"{root} holds no images.")
    records = RecordFiles(files, counts, "write it again")
    pictures = RecordPictures(root, np.arange(len(labels)), listed["sizes"], data, title, records)
    labels = check_labels(labels, len(labels), str(root))
    if not held:
        return pictures, labels, every_fifth_of_each_class(labels)
    return pictures, labels, np.arange(len(labels)) >= counts[: len(train)].sum()


def image_and_label(record: bytes) -> tuple[bytes, int]:
    """Raises ValueError for a record that has them not."""
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
