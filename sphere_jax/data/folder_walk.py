"""Pictures under a folder, listed without being opened; what is left out is counted."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sphere_jax.common.progress import log

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif",
)  # fmt: skip
NOT_CLASSES = ("__MACOSX",)  # what archives of a Mac hold besides

Found = list[tuple[str, int]]  # path relative to the folder, with slashes, and bytes


class LeftOut:
    """What is left out of a data set, by kind, with one example each."""

    def __init__(self):
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, kind: str, path: str) -> None:
        self._counts[kind] += 1
        self._examples[kind] = min(path, self._examples.get(kind, path))

    def say(self, root: Path) -> None:
        """A line for every kind."""
        for kind, count in sorted(self._counts.items()):
            log(f"{root}: {count:,} left out: {kind}, for example {self._examples[kind]}")


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted, and by value where all are integers: "10" is not
    between "1" and "2". Hidden ones, and links back to `folder`, are left out."""
    own = _identity(os.stat(folder))
    with os.scandir(folder) as entries:
        folders = [e for e in entries if _counts(e.name) and e.is_dir()]
        names = [e.name for e in folders if not e.is_symlink() or _identity(e.stat()) != own]
    if all_integers(names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def all_integers(names: Iterable[str]) -> bool:
    return all(name.isascii() and name.isdigit() for name in names)


def pictures_in(
    folder: Path, left_out: LeftOut, deep: bool = True, suffixes: tuple[str, ...] = SUFFIXES
) -> Found:
    """Files with one of `suffixes` in `folder` and, if `deep`, in all folders below it, sorted by
    path.

    Links are followed, except to a folder that they are in. Only regular files count: a pipe with
    the name of a picture would block whoever opens it. Hidden names are passed over.
    """
    found: Found = []
    todo = [("", str(folder), (_identity(os.stat(folder)),))]
    while todo:
        prefix, path, above = todo.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if not _counts(entry.name):
                    continue
                if entry.is_dir():
                    identity = _identity(entry.stat())
                    if not deep:
                        continue
                    if identity in above:
                        left_out.add("links to a folder above them", entry.path)
                        continue
                    todo.append((f"{prefix}{entry.name}/", entry.path, (*above, identity)))
                elif not entry.is_file():
                    broken = entry.is_symlink() and not os.path.exists(entry.path)
                    kind = "links to nothing" if broken else "pipes, sockets or devices"
                    left_out.add(kind, entry.path)
                elif entry.name.lower().endswith(suffixes):
                    found.append((f"{prefix}{entry.name}", entry.stat().st_size))
                else:
                    left_out.add("files that are no images", entry.path)
    return sorted(found)


def has_pictures(folder: Path) -> bool:
    """Whether pictures are directly in `folder`."""
    with os.scandir(folder) as entries:
        return any(is_picture(e.name) and e.is_file() for e in entries)


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture."""
    return _counts(name) and name.lower().endswith(SUFFIXES)


def _counts(name: str) -> bool:
    return name[0] != "." and name not in NOT_CLASSES


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def named(names: Iterable[str], most: int = 3) -> str:
    """ "'a', 'b', 'c' and 4 more"."""
    names = list(names)
    listed = ", ".join(f"'{name}'" for name in names[:most])
    return listed + (f" and {len(names) - most:,} more" if len(names) > most else "")
