"""Batches for training: the order is a function of the seed alone, whatever the processes."""

from collections.abc import Callable, Iterator

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from sphere_jax.common.progress import Progress
from sphere_jax.data.source import Source

Batch = dict[str, jax.Array]


class Batches(Iterator[Batch]):
    """Endless shuffled device batches, one fetched ahead, with a state that resumes exactly.

    What is shuffled and batched are *indices*: every process walks the same order and reads only
    the rows that its devices hold, so the order does not depend on how many processes there are.
    With `threads`, so many batches are read at once and up to twice as many wait in memory; else
    they are read in the thread that calls. Either way they are the same, to the bit.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        sharding: NamedSharding,
        flip: bool = False,
        threads: int = 0,
    ):
        self._sharding, self._size = sharding, batch_size
        rows = self._rows = _local_rows(batch_size, sharding)

        def read(batch: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
            indices, flips = batch
            return source.read(indices[rows], flips[rows] if flip else None)

        batches = index_batches(len(source), batch_size, seed)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads * 2, 1))
        self._iterator = iter(batches.map(read).to_iter_dataset(options))
        self._ahead: tuple[Batch, dict] | None = None
        self.state = self._iterator.get_state()  # of the batches handed out so far

    def set_state(self, state: dict) -> None:
        """Continues after the batches that `state` had seen."""
        self._iterator.set_state(state)
        self._ahead, self.state = None, state

    def __next__(self) -> Batch:
        batch, self.state = self._ahead or self._fetch()
        self._ahead = self._fetch()  # the transfer runs while the caller computes
        return batch

    def _fetch(self) -> tuple[Batch, dict]:
        read = next(self._iterator)
        return to_device(read, self._rows, self._size, self._sharding), self._iterator.get_state()


def index_batches(count: int, batch_size: int, seed: int) -> grain.MapDataset:
    """The order of batches: element i holds the rows (B,) of batch i, and which of them are
    mirrored where mirroring is on. Endless: `count` examples are reshuffled every epoch.
    """
    indices = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    return indices.batch(batch_size, drop_remainder=True).random_map(_with_flips)


def _local_rows(batch_size: int, sharding: NamedSharding) -> np.ndarray:
    """The rows of a global batch that the devices of this process hold, sorted, each once."""
    held = sharding.addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in held.values()]))


def _with_flips(indices: np.ndarray, rng: np.random.Generator):
    return indices, rng.random(len(indices)) < 0.5


def to_device(
    read: dict[str, np.ndarray], rows: np.ndarray, batch_size: int, sharding: NamedSharding
) -> Batch:
    """Rows `rows` (sorted) of a global batch, as one sharded array per name."""

    def place(array):
        def shard(index: tuple[slice, ...]):
            return array[np.searchsorted(rows, np.arange(batch_size)[index[0]])]

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
    count, whole, local = len(arrays[0]), None, _local_rows(batch_size, sharding)
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
