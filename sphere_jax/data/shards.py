"""A data set written in files of at most so many examples, which processes take in turn.

A file is written whole or not at all, and the same command writes what an interruption left out.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import barrier, is_main_process
from sphere_jax.common.progress import Progress, log
from sphere_jax.common.temporary import remove_leftovers

PARTS = ("train", "heldout")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Images `start` to `stop` (excluded) of a part of the data set."""

    part: str
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.part}-{self.number:05d}"

    def __len__(self) -> int:
        return self.stop - self.start


def shards_of(counts: Mapping[str, int], size: int) -> list[Shard]:
    """The parts of a data set, so many images each, in shards of at most `size`."""
    return [
        Shard(part, start // size, start, min(start + size, count))
        for part, count in counts.items()
        for start in range(0, count, size)
    ]


def write_missing(
    folder: Path,
    shards: Sequence[Shard],
    is_whole: Callable[[Shard], bool],
    write: Callable[[Shard], None],
    what: str,
) -> None:
    """Writes the shards that are not whole in `folder`, `what` in progress lines.

    Every process writes its share; all of them return once every share is written.
    """
    barrier(f"{folder} is started")  # the first process has written the plan there
    if is_main_process():
        remove_leftovers(folder, below=False)
    own = shards[jax.process_index() :: jax.process_count()]
    todo = [shard for shard in own if not is_whole(shard)]
    if len(todo) < len(own):
        log(f"{folder}: {len(own) - len(todo)} of {len(own)} files finished before and checked")
    progress, done = Progress(what, sum(map(len, todo)), "img/s a process"), 0
    for shard in todo:
        write(shard)
        done += len(shard)
        progress.done(done)
    barrier(f"all of {folder} is {what}")


def check_not_foreign(folder: Path, *ours: str) -> None:
    """Raises UserError for a folder that holds files, none of which is named as one of `ours`, the
    first that is written there. Hidden files do not count: temporary ones, or of the system."""
    held = sorted(file.name for file in folder.glob("*") if not file.name.startswith("."))
    if held and not set(held) & set(ours):
        more = f" and {len(held) - 1:,} more" if len(held) > 1 else ""
        raise UserError(
            f"{folder} holds {held[0]}{more} and no {ours[0]}, so it was not started here; give "
            "another --out."
        )


def check_plan(folder: Path, before: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Raises UserError if `folder` was started with another plan, `before`, than this one."""
    if found := first_difference(before, plan):
        key, old, new = found
        raise UserError(
            f"{folder} was started with {key}={old!r}, not {new!r}; give another --out, or the "
            "command that started it."
        )


def first_difference(old: Mapping, new: Mapping) -> tuple[str, Any, Any] | None:
    """The first key in which two (nested) dictionaries differ, with both values."""
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if inner := first_difference(a, b):
                return inner
        elif a != b:
            return key, a, b
    return None
