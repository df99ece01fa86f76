"""Batches for training: the order is a function of the seed alone, whatever the processes."""

from collections.abc import Callable, Iterator

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from sphere_jax.data.sources import Source

Batch = dict[str, jax.Array]


class Batches(Iterator[Batch]):
    """Endless shuffled device batches, one fetched ahead, with a state that resumes exactly.

    The element of the grain pipeline is a batch of *indices*: every process walks the same order
    and reads only the rows that its devices hold, so the order does not depend on how many
    processes there are.
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
        self._source, self._sharding, self._flip = source, sharding, flip
        indices = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
        draws = indices.batch(batch_size, drop_remainder=True).random_map(_with_flip_draws)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads * 2, 1))
        self._iterator = iter(draws.to_iter_dataset(options))
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
        indices, flips = next(self._iterator)
        rows = _own_rows(len(indices), self._sharding)
        read = self._source.read(indices[rows], flips[rows] if self._flip else None)
        return to_device(read, rows, len(indices), self._sharding), self._iterator.get_state()


def _own_rows(batch_size: int, sharding: NamedSharding) -> np.ndarray:
    """The rows of a global batch that the devices of this process hold, sorted, each once."""
    held = sharding.addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in held.values()]))


def _with_flip_draws(indices: np.ndarray, rng: np.random.Generator):
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
    after_batch: Callable[[int], None] = lambda done: None,
):
    """`function` over aligned host arrays in batches of one static size; the last is padded with
    repeats of the first row and cut again, so one program serves all.

    `arrays` may be read where they are indexed (`data.folders.Pictures`); a process reads only the
    rows that its devices hold. `function` returns an array or a tree of arrays with a leading batch
    axis; the result comes back to the host of every process. `after_batch(done)` hears how many
    rows are done.
    """
    count, pieces, own = len(arrays[0]), [], _own_rows(batch_size, sharding)
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size)
        rows = np.where(rows < count, rows, 0)[own]
        named = {str(i): array[rows] for i, array in enumerate(arrays)}
        batch = to_device(named, own, batch_size, sharding)
        out = function(*(batch[str(i)] for i in range(len(arrays))))
        pieces.append(jax.tree.map(lambda x, n=count - start: to_host(x)[:n], out))
        after_batch(min(start + batch_size, count))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)


def to_host(array: jax.Array) -> np.ndarray:
    """A global array as numpy, on every process."""
    if not array.is_fully_addressable:
        from jax.experimental import multihost_utils

        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)
