"""CRC-32 of every file of a checkpoint, kept beside the checkpoints in STEP.json.

Several processes share the work: each sums the files that it wrote, and verifies a part of all
files when they are read. Nothing here touches a device, so that sums can be taken in a thread.
"""

import re
import threading
import time
from pathlib import Path
from typing import Any

import jax

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import crc32, read_json, write_json, write_text
from sphere_jax.common.processes import gathered_texts, is_main_process
from sphere_jax.training.checkpoint_folder import files_below, size_of

WRITER = re.compile(r"(?:^|/)ocdbt\.process_(\d+)/")  # orbax's folder of what a process wrote
SEEN = 20.0  # seconds in which a network file system must show what another host wrote


class Checksums:
    """Those of the checkpoints of one stage, in `folder`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def claim(self, store: str, taken: bool) -> None:
        """Makes the folder, and notes there that the checkpoints are in `store`, or, "", beside it.

        Raises UserError if other checkpoints are in a new store (`taken`), or these elsewhere.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        note = self._folder / "store.txt"
        known = note.read_text().strip() if note.exists() else ""
        if known != store and (note.exists() or any(self._folder.glob("*.json"))):
            raise UserError(
                f"The checkpoints of {self._folder.with_suffix('')} are in {known or 'it'}, not in "
                f"{store or 'it'}; set config.checkpoints.store to {known!r}."
            )
        if store and not note.exists():
            if taken:
                raise UserError(
                    f"{store} holds checkpoints of another run; give config.checkpoints.store a "
                    "folder of its own."
                )
            if is_main_process():
                write_text(note, store)

    def file(self, step: int) -> Path:
        """Once it is there, the checkpoint of `step` is complete."""
        return self._folder / f"{step}.json"

    def forget(self, step: int) -> None:
        """Deletes what is known of a step; the first process alone calls it."""
        self.file(step).unlink(missing_ok=True)
        for part in self._folder.glob(f"{step}.of-*.json"):
            part.unlink(missing_ok=True)

    def take(self, step: int, root: Any, abandoned: threading.Event) -> dict[str, int]:
        """The sums of all files in `root`, by their names there, in the first process; the others
        return those that they took themselves, which they leave for the first one.

        Returns early, with some of them, once `abandoned` is set.
        """
        number, count = jax.process_index(), jax.process_count()
        sums = {
            name: crc32(root / name)
            for name in _names(root)
            if not abandoned.is_set() and _writer(name) % count == number
        }
        if number and not abandoned.is_set():
            write_json(self._part(step, number), sums, sealed=True)
        if number == 0:
            for other in range(1, count):
                sums |= self._awaited(self._part(step, other), abandoned)
        return sums

    def write(self, step: int, sums: dict[str, int], kept: set[int]) -> None:
        """Makes `step` complete, and deletes what is known of steps that are not `kept`."""
        for old in self._folder.glob("*.json"):
            if int(old.name.partition(".")[0]) not in kept:
                old.unlink(missing_ok=True)
        write_json(self.file(step), sums, sealed=True)
        for part in self._folder.glob(f"{step}.of-*.json"):
            part.unlink(missing_ok=True)

    def damage(self, step: int, root: Any, items: tuple[str, ...]) -> str:
        """What is wrong with the files of these items, as the end of a sentence about the
        checkpoint; "" if nothing is. Every process must call it, and gets the same answer."""
        try:
            own = self._damage(step, root, items)
        except UserError as error:
            own = f"cannot be read ({error})"
        return next((found for found in gathered_texts(own) if found), "")

    def _damage(self, step: int, root: Any, items: tuple[str, ...]) -> str:
        try:
            sums = read_json(self.file(step)) or {}
        except UserError:
            sums = {}
        unlisted = [item for item in items if (root / item).is_dir() and not _listed(item, sums)]
        if not sums or unlisted or not all(type(value) is int for value in sums.values()):
            return "has no readable file of checksums"
        parts = {name: Path(name).parts for name in sums}
        names = [name for name in sums if len(parts[name]) == 1 or parts[name][0] in items]
        sizes = {}
        for name in names:
            if (size := _size(root / name)) is None:
                return f"lacks the file {name}"
            sizes[name] = size
        for name in _share(sizes):
            if crc32(root / name) != sums[name]:
                return f"is damaged: {name} has changed"
        return ""

    def _part(self, step: int, number: int) -> Path:
        return self._folder / f"{step}.of-{number}.json"

    def _awaited(self, part: Path, abandoned: threading.Event) -> dict[str, int]:
        """What another process leaves. If it has ended, this one ends too (`common/peers.py`)."""
        while not abandoned.is_set():
            if found := read_json(part):
                return found
            list(self._folder.iterdir())  # what a network file system remembers is read again
            abandoned.wait(0.2)
        return {}


def _names(root: Any) -> list[str]:
    return [str(file.relative_to(root)) for file in files_below(root)]


def _writer(name: str) -> int:
    """The process that wrote a file; the first one also wrote what belongs to none."""
    found = WRITER.search(name)
    return int(found[1]) if found else 0


def _listed(item: str, sums: dict) -> bool:
    return any(Path(name).parts[0] == item for name in sums)


def _size(file: Any) -> int | None:
    """Of a file, if it is there; another host may see it late."""
    deadline = time.monotonic() + (SEEN if jax.process_count() > 1 else 0)
    while True:
        if file.is_file():
            return size_of(file)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.2)


def _share(sizes: dict[str, int]) -> list[str]:
    """The files that this process verifies: each has about the same number of bytes."""
    shares = [[] for _ in range(jax.process_count())]
    totals = [0] * len(shares)
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = totals.index(min(totals))
        shares[least].append(name)
        totals[least] += sizes[name] + 1
    return shares[jax.process_index()]
