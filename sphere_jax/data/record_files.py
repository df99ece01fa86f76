"""ArrayRecord files: records read by number, and written whole or not at all."""

import bisect
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.temporary import removed_at_end, temporary_beside

OPEN_FILES = 256  # at a time: a process may open some thousand files, often not more
RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"  # reading ahead is for whole files


class RecordFiles:
    """The records of files by number, those of the first file first; for threads to share.

    `counts` are records a file. `fix` ends the sentence about a damaged one.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int], fix: str):
        self._files, self._fix = tuple(files), fix
        self._starts = np.cumsum([0, *counts])
        self._bounds = self._starts.tolist()
        self._readers, self._lock = {}, threading.Lock()

    def __getstate__(self) -> dict:
        """For another process, which opens the files itself."""
        return self.__dict__ | {"_readers": {}, "_lock": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

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
            except RuntimeError as error:  # every record has a checksum
                raise self._damaged(file, error) from error
            for place, record in zip(places, records, strict=True):
                found[place] = record
        return found

    def one(self, row: int) -> bytes:
        """Record `row`, as of `read`. For large ones it is the quicker way, as the memory of one is
        used again for the next."""
        file = bisect.bisect_right(self._bounds, row) - 1
        try:
            (record,) = self._reader(file).read([int(row) - self._bounds[file]])
        except RuntimeError as error:
            raise self._damaged(file, error) from error
        return record

    def file_of(self, row: int) -> Path:
        """The file that holds a record."""
        return self._files[bisect.bisect_right(self._bounds, row) - 1]

    def _damaged(self, file: int, error: RuntimeError) -> UserError:
        return UserError(f"{self._files[file]} is damaged ({error}); {self._fix}.")

    def _reader(self, file: int):
        with self._lock:
            if file not in self._readers:
                if len(self._readers) == OPEN_FILES:  # closed once no thread reads it
                    del self._readers[next(iter(self._readers))]
                self._readers[file] = open_records(self._files[file])
            return self._readers[file]


def open_records(file: Path):
    """A reader. Raises RuntimeError if it is not a whole ArrayRecord file."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(_as_text(file), RANDOM_ACCESS)
    if not reader.ok():  # else it reports 0 records
        raise RuntimeError("it is cut off, or of another kind")
    return reader


@contextlib.contextmanager
def whole_records(file: Path) -> Iterator[Callable[[Iterable[bytes]], None]]:
    """An ArrayRecord file that is there whole, or not at all: gives what adds records to it.

    Raises:
      UserError: the file cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    with removed_at_end(temporary_beside(file)) as temporary:
        with _writing(file):
            writer = ArrayRecordWriter(_as_text(temporary), "group_size:1,uncompressed")

        def add(records: Iterable[bytes]) -> None:
            nonlocal count
            with _writing(file):
                for record in records:
                    writer.write(record)
                    count += 1

        yield add
        with _writing(file):
            writer.close()
            # Neither opening nor closing raises for a file that could not be written.
            if open_records(temporary).num_records() != count:
                raise OSError("not all of it was written")
            os.replace(temporary, file)


def _as_text(file: Path) -> str:
    """Its path, which ArrayRecord takes as text alone. Raises UserError for one that is none."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        raise UserError(f"{file} is no valid text, which record files need; rename it.") from None
    return str(file)


@contextlib.contextmanager
def _writing(file: Path):
    """Raises UserError where a file cannot be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(f"Cannot write {file} ({error}).") from error
