"""Batches for training: the order is a function of the seed alone, whatever the processes."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from sphere_jax.common.cores import usable_cores
from sphere_jax.common.progress import Progress
from sphere_jax.data.pictures import by_this_thread
from sphere_jax.data.source import Source
from sphere_jax.data.workers import ended_workers_named, read_by_workers

Batch = dict[str, jax.Array]

MOST_THREADS = 16  # by default: more contend for Python's lock


class Batches(Iterator[Batch]):
    """Endless shuffled device batches, one fetched ahead, with a state that resumes exactly.

    What is shuffled and batched are *indices*: every process walks the same order and reads only
    the rows that its devices hold. So neither the order nor the state depends on how many processes
    there are, and a run resumes on another number of them. With `threads`, so many batches are read
    at once and as many wait in memory, -1 as `threads_for` says; 0 reads them in the thread that
    calls. With `workers`, so many other processes read them, where the source is in files. Batches
    are always the same, to the bit. Latents are as stored, of 16 bits say: see `Source.stored`.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        sharding: NamedSharding,
        flip: bool = False,
        threads: int = 0,
        workers: int = 0,
        crops: bool = False,
    ):
        self._sharding, self._size = sharding, batch_size
        self._workers = 0 if source.in_memory else workers
        self._threads = 0 if self._workers else threads_for(source, threads)
        rows = self._rows = local_rows(batch_size, sharding)
        self._read = ReadRows(source, flip, self._threads > 0 or self._workers > 0)
        self._order = index_batches(len(source), batch_size, seed, rows, crops)
        self._iterator = self._from(0)
        self._ahead: Batch | None = None
        self._given = 0  # batches handed out

    @property
    def state(self) -> dict[str, int]:
        """That of the batches handed out so far."""
        return {"next_index": self._given}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues after the batches that `state` had seen."""
        self._iterator.close()
        self._given = state["next_index"]
        self._iterator, self._ahead = self._from(self._given), None

    def close(self) -> None:
        """Ends what reads ahead. No batch can be had afterwards."""
        self._iterator.close()

    def __next__(self) -> Batch:
        batch = self._fetch() if self._ahead is None else self._ahead
        self._ahead = self._fetch()  # the transfer runs while the caller computes
        self._given += 1
        return batch

    def _fetch(self) -> Batch:
        with ended_workers_named() if self._workers else contextlib.nullcontext():
            read = next(self._iterator)
        return to_device(read, self._rows, self._size, self._sharding)

    def _from(self, first: int) -> grain.DatasetIterator:
        """Batches as read, from number `first` on."""
        threads, ahead = self._threads, max(2 * self._threads, 1)
        batches = self._order[first:].map(self._read)
        batches = batches.to_iter_dataset(grain.ReadOptions(threads, ahead))
        if self._workers:
            batches = read_by_workers(batches, self._workers)
        return iter(batches)


@dataclasses.dataclass(frozen=True)
class ReadRows:
    """Reads what `index_batches` gives.

    alone: by the thread that calls, without others to help it.
    """

    source: Source
    flip: bool
    alone: bool

    def __call__(self, batch: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        indices, flips, *crops = batch
        with by_this_thread() if self.alone else contextlib.nullcontext():
            return self.source.stored(indices, flips if self.flip else None, *crops)


def threads_for(source: Source, threads: int = -1) -> int:
    """How many threads read ahead: `threads`; for -1 one a core, at most MOST_THREADS, where the
    source is in files, and none where it is in memory."""
    if threads >= 0:
        return threads
    return 0 if source.in_memory else min(usable_cores(), MOST_THREADS)


def index_batches(
    count: int,
    batch_size: int,
    seed: int,
    rows: np.ndarray | None = None,
    crops: bool = False,
) -> grain.MapDataset:
    """The order of batches: element i holds the examples (B,) of batch i, which of them are
    mirrored where mirroring is on, and with `crops` the draws (B, 3) of their random crops.
    Endless: `count` examples are reshuffled every epoch.

    rows: those of a batch that are wanted, sorted; others cost nothing.
    """
    rows = np.arange(batch_size) if rows is None else rows
    examples = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    return _Rows(examples, batch_size, rows).random_map(_WithDraws(batch_size, rows, crops))


class _Rows(grain.MapDataset):
    """Some rows of every batch of `parent`."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, rows: np.ndarray):
        super().__init__(parent)
        self._size, self._rows = batch_size, rows.tolist()

    def __len__(self) -> int:
        return len(self._parent) // self._size

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        start = index * self._size
        return np.array([self._parent[start + row] for row in self._rows])


@dataclasses.dataclass(frozen=True)
class _WithDraws:
    """Draws for the whole batch, so that a row's flip and crop do not depend on who reads it."""

    batch_size: int
    rows: np.ndarray
    crops: bool

    def __call__(self, indices: np.ndarray, rng: np.random.Generator):
        flips = rng.random(self.batch_size)[self.rows] < 0.5
        if not self.crops:
            return indices, flips
        return indices, flips, rng.random((self.batch_size, 3))[self.rows]


def local_rows(batch_size: int, sharding: NamedSharding) -> np.ndarray:
    """The rows of a global batch that the devices of this process hold, sorted, each once."""
    held = sharding.addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in held.values()]))


def to_device(
    read: dict[str, np.ndarray], rows: np.ndarray, batch_size: int, sharding: NamedSharding
) -> Batch:
    """Rows `rows` (sorted) of a global batch, as one sharded array per name."""

    def place(array):
        def shard(index: tuple[slice, ...]):
            places = np.searchsorted(rows, np.arange(batch_size)[index[0]])
            if len(places) and places[-1] - places[0] == len(places) - 1:  # no copy
                return array[places[0] : places[-1] + 1]
            return array[places]

        return jax.make_array_from_callback((batch_size, *array.shape[1:]), sharding, shard)

    return {name: place(array) for name, array in read.items()}


def map_batched(
    function: Callable,
    arrays: tuple[np.ndarray, ...],
    batch_size: int,
    sharding: NamedSharding,
    what: str = "",
):
    """`function` over aligned host arrays in batches of one static size; the last is padded with
    repeats of the first row and cut again, so one program serves all.

    `arrays` may be read where they are indexed (`data.lazy_pictures.Pictures`); a process reads
    only the rows that its devices hold. `function` returns an array or a tree of arrays with a
    leading batch axis; the result comes back to the host of every process. `what` names the work in
    progress lines; without it there are none.
    """
    count, whole, local = len(arrays[0]), None, local_rows(batch_size, sharding)
    progress = Progress(what, count) if what else None
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size)
        rows = np.where(rows < count, rows, 0)[local]
        named = {str(i): array[rows] for i, array in enumerate(arrays)}
        batch = to_device(named, local, batch_size, sharding)
        out = function(*(batch[str(i)] for i in range(len(arrays))))
        out, stop = jax.tree.map(to_host, out), min(start + batch_size, count)
        if whole is None:
            whole = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), out)
        for into, leaf in zip(jax.tree.leaves(whole), jax.tree.leaves(out), strict=True):
            into[start:stop] = leaf[: stop - start]
        if progress:
            progress.done(stop)
    return whole


def to_host(array: jax.Array) -> np.ndarray:
    """A global array as numpy, on every process."""
    if not array.is_fully_addressable:
        from jax.experimental import multihost_utils

        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)
