"""Paths that are written before they get their names, and none of them left behind.

They are removed by `finally`; by `remove_temporaries` where a signal ends the process in the middle
of a long call; and by `remove_leftovers`, the next time, where the process was killed.
"""

import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SILENT = 600.0  # seconds without a write after which another host's process is taken to be gone
LEFTOVER = re.compile(r"\..+\..+\.\d+\.tmp")  # as `temporary_beside` names it
_WRITTEN: set[Path] = set()  # temporary files and folders of this process


def temporary_beside(path: Path) -> Path:
    """Where a process writes before it renames to `path`; other hosts may write `path` as well."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Deletes the temporary paths of `write_whole` that killed processes left in `folder` and, if
    `below`, in its folders. Those of processes that may still write, on this host or another, stay.
    """
    for place, inner, names in os.walk(folder):  # folders that vanish meanwhile are passed over
        for path in (Path(place, name) for name in inner + names if LEFTOVER.fullmatch(name)):
            process = int(path.name.split(".")[-2])
            with suppress(OSError):  # gone meanwhile
                if not _may_write(path, process):
                    _remove(path)
        if not below:
            inner.clear()


def _may_write(path: Path, process: int) -> bool:
    if not path.name.endswith(f".{socket.gethostname()}.{process}.tmp"):  # of another host
        written = max(each.stat().st_mtime for each in (path, *path.glob("*")))
        return time.time() - written < SILENT
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return process != os.getpid()  # else of an earlier process with this number


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """In the system's folder for such; gone afterwards."""
    with removed_at_end(Path(tempfile.mkdtemp())) as folder:
        yield folder


@contextmanager
def removed_at_end(path: Path) -> Iterator[Path]:
    """A temporary file or folder, which may be renamed meanwhile."""
    _WRITTEN.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _WRITTEN.discard(path)


def remove_temporaries() -> None:
    """Those of this process, which is about to end in the middle of its work; within seconds, even
    where a file system does not answer."""
    for path in tuple(_WRITTEN):
        remover = threading.Thread(target=_remove, args=(path,), daemon=True)
        remover.start()
        remover.join(2.0)


def _remove(path: Path) -> None:
    """A file or a folder, if it is there and can be removed."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
