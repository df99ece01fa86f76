"""Orbax checkpoints with checksums.

A checkpoint holds separate items (`params`, `ema`, `optimizer`, `progress`, `data`, and `profiles`
where averages with other profiles are tracked), so that a sampler reads the average alone. Saving
is asynchronous. Orbax does not detect changed bytes, so the CRC-32 of every file is written beside
each complete step and compared before reading (`checksums.py`). A step without checksums was
interrupted and is ignored; a damaged one is set aside. Nothing is lost, because training is
deterministic. Complete steps are deleted only when enough newer ones are complete, too, which orbax
cannot know.

Several processes write and verify shares of a checkpoint, and the first one decides which step is
read. Every process must therefore call the same functions here in the same order.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from sphere_jax.common.errors import UserError, first_line
from sphere_jax.common.files import in_bytes
from sphere_jax.common.processes import barrier, is_main_process, told_by_main_process
from sphere_jax.common.progress import log
from sphere_jax.training.checkpoint_folder import (
    delete,
    delete_unfinished,
    move,
    open_folder,
    room_in,
)
from sphere_jax.training.checksums import SEEN, Checksums
from sphere_jax.training.pending_save import PendingSave, WithoutClosedLoops
from sphere_jax.training.shared_reads import gather, spread

ITEMS = ("params", "ema", "optimizer", "progress", "profiles")


class Damaged(UserError):
    """A file of a checkpoint is missing or not as it was written: `what` says which."""

    def __init__(self, what: str):
        self.what = what
        super().__init__(
            f"{what}; run sphere_jax.main on this run again, which goes back to the checkpoint "
            "before, if there is one, or restore it from a copy."
        )


class Checkpoints:
    """The checkpoints of one stage, in `folder`, the newest `keep` complete ones; while training
    goes on, one more.

    With a `store` (gs://BUCKET/PATH) they are in a folder of the same name there, and `folder` has
    their checksums beside it alone.

    Raises UserError if nothing can be written there, or other checkpoints are in the store.
    """

    def __init__(self, folder: Path, keep: int = 2, store: str = ""):
        self.folder = open_folder(folder, store)
        self._pending: PendingSave | None = None
        self._size = 0  # bytes of the last state
        self._whole: set[int] = set()  # steps whose files are all as they were written
        self._keep, self._saves = keep, False
        self._complete: set[int] = set()  # steps, as all processes know them, once one is asked
        try:
            self._checksums = Checksums(Path(f"{Path(folder).absolute()}.crc32"))
            self._manager = ocp.CheckpointManager(
                self.folder,
                # Named here, so that a manager that has saved nothing can read earlier checkpoints.
                item_handlers={
                    **{name: ocp.StandardCheckpointHandler() for name in ITEMS},
                    "data": ocp.JsonCheckpointHandler(),
                },
            )
            self._checksums.claim(store, taken=bool(self._manager.all_steps()))
        except OSError as error:
            raise UserError(f"Cannot write checkpoints to {folder} ({error.strerror}).") from error

    def save(self, step: int, state: dict, data_state: dict) -> None:
        """Starts saving `state` after `step` batches; returns once it is copied to the host."""
        self.wait()
        self._size = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes"))
        if not self._saves:
            self.latest()
            self._saves = True
        self._prune({old for old in self._complete if old < step})
        items = {name: ocp.args.StandardSave(tree) for name, tree in _filled(state).items()}
        items["data"] = ocp.args.JsonSave(data_state)
        self._quiet = WithoutClosedLoops()
        with self._completing(step):
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        self._pending = PendingSave(step, self._manager, self._checksums, self.folder / str(step))

    def wait(self) -> None:
        """Waits for the save in progress and completes it with its checksums.

        Raises UserError, as `save` does, if it cannot be written; nothing of it is left then.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        with self._completing(pending.step):
            sums = pending.result()
            if is_main_process():
                self._checksums.write(pending.step, sums, set(self._manager.all_steps()))
        self._complete.add(pending.step)
        self._quiet.end()

    def _prune(self, complete: set[int]) -> None:
        """Deletes all but the newest of the complete steps: older ones, and those of interrupted
        starts. Every process must call it."""
        self._complete = set(sorted(complete)[-self._keep :])
        for step in sorted(set(self._manager.all_steps()) - self._complete):
            if is_main_process():
                self._checksums.forget(step)
            self._manager.delete(step)

    @contextmanager
    def _completing(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax raises its own, tensorstore's and the system's errors
            free = room_in(self.folder)
            if is_main_process():
                with suppress(Exception):  # a bucket may be out of reach: the next start does it
                    delete_unfinished(self.folder)
                    delete(self.folder / str(step))
            raise UserError(
                f"Cannot save step {step} to {self.folder} ({_short(error)}): a checkpoint "
                f"takes {in_bytes(self._size)} there{free and f', and {free} were left'}; make "
                "room, and the same command resumes from the one before."
            ) from error

    def poll(self) -> None:
        """Completes the last save if it has ended; never waits."""
        if self._pending is not None and self._pending.ended:
            self.wait()

    def close(self) -> None:
        self.wait()
        if self._saves:
            self._prune(self._complete)
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error, *_) -> None:
        """Closes. After an error, a save in progress ends without checksums: none of its threads
        may write into the folder during the next start."""
        if error is None:
            self.close()
        elif self._pending is not None:
            self._pending.abandon()

    def latest(self) -> int | None:
        """The newest step that is complete for the first process, on all of them; or None."""
        steps = list(self._manager.all_steps())
        complete = [step for step in steps if self._checksums.file(step).exists()]
        steps, complete = told_by_main_process([steps, complete])
        self._see(steps)
        self._complete = set(complete)
        return max(complete, default=None)

    def _see(self, steps: list[int]) -> None:
        """Waits until this process sees the steps that the first one sees."""
        deadline = time.monotonic() + SEEN
        while sorted(self._manager.all_steps()) != sorted(steps):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self.folder} shows this process of the run other checkpoints than the first"
                    " one; all hosts must share it."
                )
            time.sleep(0.2)
            self._manager.reload()

    def newest_whole(self) -> int | None:
        """The newest complete step whose files are as they were written, or None. Newer ones,
        which are damaged, are moved beside the folder, and a line says so. What orbax has not
        completed is deleted."""
        if is_main_process():
            delete_unfinished(self.folder)
        while (step := self.latest()) is not None:
            if not (damage := self._damage(step, (*ITEMS, "data"))):
                self._whole.add(step)
                return step
            aside = self._set_aside(step)
            used = "there is none before it" if self.latest() is None else "the one before is used"
            log(f"{damage}; it is moved to {aside}, and {used}")
        return None

    def _set_aside(self, step: int) -> Any:
        """Moves a damaged step out of the way; every process must call it."""
        aside = self.folder.with_name(f"{self.folder.name}-damaged")
        target, copies = aside / str(step), 1
        while target.exists():
            target, copies = aside / f"{step}-{copies}", copies + 1
        barrier(f"checkpoint {step} is read")
        if is_main_process():
            move(self.folder / str(step), target)
            self._checksums.forget(step)
        barrier(f"checkpoint {step} is moved")
        self._manager.reload()
        return target

    def restore(self, step: int, abstract: dict) -> tuple[dict, dict]:
        """`(state, data_state)` onto the shapes and shardings of `abstract`.

        Raises:
          UserError: a file is missing or damaged, or the checkpoint is of another network.
        """
        self._verify(step, (*ITEMS, "data"))
        filled = _filled(abstract)
        self._check_shapes(step, filled)
        items = {name: ocp.args.StandardRestore(spread(tree)) for name, tree in filled.items()}
        restored = self._read(step, {**items, "data": ocp.args.JsonRestore()})
        state = {name: gather(restored[name], tree) for name, tree in filled.items()}
        return abstract | state, restored["data"]

    def restore_item(self, step: int, name: str, abstract: PyTree) -> PyTree:
        """One item alone, such as the EMA for sampling. Raises UserError as `restore` does."""
        self._verify(step, (name,))
        self._check_shapes(step, {name: abstract})
        items = {name: ocp.args.StandardRestore(spread(abstract))}
        return gather(self._read(step, items)[name], abstract)

    def _read(self, step: int, items: dict):
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax raises its own, tensorstore's and json's errors
            raise UserError(f"{self._where(step)} cannot be read ({first_line(error)}).") from error

    def _check_shapes(self, step: int, abstract: dict) -> None:
        """Before reading: orbax reports a mismatch only after many other messages."""
        metadata = self._manager.item_metadata(step)
        for item, tree in abstract.items():
            if metadata[item] is None:
                raise UserError(f"{self._where(step)} has no '{item}'.")
            stored = {_path(p): tuple(leaf.shape) for p, leaf in _leaves(metadata[item])}
            expected = {_path(p): _stored_shape(leaf) for p, leaf in _leaves(tree)}
            for path in sorted(stored.keys() | expected.keys()):
                if stored.get(path) != expected.get(path):
                    raise UserError(
                        f"{self._where(step)} is of another network: {item}/{path} is "
                        f"{stored.get(path, 'absent')} there, {expected.get(path, 'absent')} here."
                    )

    def _where(self, step: int) -> str:
        return f"Checkpoint {self.folder / str(step)}"

    def _verify(self, step: int, items: tuple[str, ...]) -> None:
        if step not in self._whole and (damage := self._damage(step, items)):
            raise Damaged(damage)

    def _damage(self, step: int, items: tuple[str, ...]) -> str:
        """What is wrong with the files of these items, as a sentence without its stop; "" if
        nothing is."""
        found = self._checksums.damage(step, self.folder / str(step), items)
        return f"{self._where(step)} {found}" if found else ""


def _filled(state: dict) -> dict:
    """The items that hold arrays: orbax refuses empty ones, and most runs track no profiles."""
    return {name: tree for name, tree in state.items() if jax.tree.leaves(tree)}


def _leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


def _path(path) -> str:
    return "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)


def _stored_shape(leaf) -> tuple[int, ...]:
    """A typed key is stored as its words."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return tuple(jax.eval_shape(jax.random.key_data, leaf).shape)
    return tuple(leaf.shape)


def _short(error: Exception) -> str:
    """Of an error of orbax, whose lines may hold the names of many files: the system's reason."""
    known = (
        "No space left on device", "Disk quota exceeded", "File too large", "Read-only file system",
    )  # fmt: skip
    found = next((reason for reason in known if reason in str(error)), "")
    return found or getattr(error, "strerror", None) or first_line(error)
