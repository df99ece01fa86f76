"""One pass over a side: images in, sums and rows of features out, for all networks together.

Each process reads its own part of a side and runs the networks on its own devices; what they found
is put together at the end, in the order of the side. Statistics are streamed in float64; rows are
kept, in float32, only for outputs of which a measure needs them.
"""

import dataclasses
import functools
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float32, Int64, UInt8

from sphere_jax.common.processes import gathered
from sphere_jax.common.progress import Progress
from sphere_jax.data.pipeline import to_host
from sphere_jax.distribution.mesh import batch_sharding, make_mesh
from sphere_jax.evaluation.features.base import Features
from sphere_jax.evaluation.fitting import Fitting
from sphere_jax.evaluation.read_ahead import Looks, Read, read_ahead
from sphere_jax.evaluation.sides.base import Drawn, OnHost, Pictures, Side
from sphere_jax.evaluation.statistics import Statistics, Stream

IN_FLIGHT = 2  # batches on the devices
Key = tuple[str, str]  # network and output


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is needed of one output of a network: rows, or their statistics alone."""

    network: Features
    output: str
    rows: bool

    @property
    def key(self) -> Key:
        return self.network.name, self.output


@dataclasses.dataclass(frozen=True, eq=False)
class Collected:
    """What a pass found. order: the place in the side of each image that counts."""

    order: Int64[np.ndarray, " n"]
    statistics: Mapping[Key, Statistics]
    rows: Mapping[Key, Float32[np.ndarray, "n f"]]
    looks: Looks


def collect(
    side: Side,
    wanted: Sequence[Wanted],
    fitting: Fitting,
    batch_size: int = 64,
    skip_bad: bool = False,
) -> Collected:
    """Every image of a side once through every network.

    The result depends on neither the batch size, nor devices, nor processes, but for the last
    digits of float32.

    Raises:
      UserError: an image cannot be used, or a network cannot take its size.
    """
    looks, found = Looks(), {each.key: _Output(each.rows) for each in wanted}
    order: list[int] = []
    images = side.images
    if isinstance(images, Drawn) and fitting.size not in (None, images.size):
        images = OnHost(images)
    together = isinstance(images, Drawn)  # every process has everything
    if together:
        batches = _drawn(images, wanted, looks)
    else:
        devices = jax.local_devices()
        sharding = batch_sharding(make_mesh(devices=devices))
        if isinstance(images, Pictures):
            batch_size = min(batch_size, len(images))
        batch_size = -(-max(batch_size, 1) // len(devices)) * len(devices)
        reads = read_ahead(images, fitting, 4 * batch_size, looks, skip_bad)
        batches = (
            (rows, _outputs(_placed(batch, sharding), wanted, sharding))
            for rows, batch in _batches(reads, batch_size)
        )
    known = hasattr(side.images, "__len__")
    progress = Progress(f"{side.name}:", len(side.images)) if known else None
    for rows, outputs in _in_flight(batches):
        order += rows
        for key, values in outputs.items():
            found[key].add(values[: len(rows)])
        if progress:
            progress.done(len(order) * (1 if together else jax.process_count()))
    own = Collected(np.array(order, np.int64), *_finished(found), looks)
    if together or jax.process_count() == 1:
        return own
    return _together([pickle.loads(part) for part in gathered(pickle.dumps(own))])


class _Output:
    """The statistics of an output, and its rows if they are needed."""

    def __init__(self, keep: bool):
        self.stream, self.rows, self.count = Stream(), [] if keep else None, 0

    def add(self, values: Float32[np.ndarray, "b f"]) -> None:
        self.stream.add(values)
        self.count += len(values)
        if self.rows is not None:
            self.rows.append(values)


def _batches(reads: Iterable[Read], size: int) -> Iterator[tuple[list[int], Any]]:
    """Rows and images: an array (size, h, w, 3) filled up with zeros, or a list of as many images
    of different sizes, filled up with the first."""
    batch: list[Read] = []
    for read in reads:
        batch.append(read)
        if len(batch) == size:
            yield [each.row for each in batch], _stacked(batch, size)
            batch = []
    if batch:
        yield [each.row for each in batch], _stacked(batch, size)


def _stacked(batch: list[Read], size: int) -> UInt8[np.ndarray, "b h w 3"] | list[np.ndarray]:
    shapes = {each.pixels.shape for each in batch}
    images = [each.pixels for each in batch]
    if len(shapes) > 1:
        return images + images[:1] * (size - len(images))
    filled = np.zeros((size, *images[0].shape), np.uint8)
    filled[: len(images)] = images
    return filled


def _drawn(
    images: Drawn, wanted: Sequence[Wanted], looks: Looks
) -> Iterator[tuple[list[int], dict[Key, jax.Array]]]:
    """Rows and outputs of samples: drawn, decoded and run through the networks by one program."""
    inside = [each for each in wanted if each.network.traceable]
    rest, start = [each for each in wanted if each not in inside], 0
    params = {each.network.name: each.network.placed(images.sharding) for each in inside}

    def then(params, pixels):
        found = {}
        for network, names in _by_network(inside):
            outputs = network.compute(params[network.name], pixels, names)
            found |= {(network.name, name): outputs[name] for name in names}
        return found

    for pixels, count, found in images.batches(then, params):
        outputs = found | _outputs(pixels, rest, images.sharding)
        for image in to_host(pixels)[:count]:
            looks.see(Read.of(start, image, Fitting()))
            start += 1
        yield list(range(start - count, start)), outputs


def _in_flight(
    batches: Iterable[tuple[list[int], dict[Key, jax.Array]]],
) -> Iterator[tuple[list[int], dict[Key, np.ndarray]]]:
    """Rows of each batch and its outputs on the host, while the devices work on the next ones."""
    waiting = []
    for each in batches:
        waiting.append(each)
        if len(waiting) > IN_FLIGHT:
            yield _on_host(*waiting.pop(0))
    for each in waiting:
        yield _on_host(*each)


def _placed(images: Any, sharding: NamedSharding) -> Any:
    """On the devices, once for all networks; images of several sizes stay on the host."""
    return images if isinstance(images, list) else jax.device_put(images, sharding)


def _outputs(images: Any, wanted: Sequence[Wanted], sharding) -> dict[Key, jax.Array]:
    found = {}
    for network, names in _by_network(wanted):
        run = network.batch_of_sizes if isinstance(images, list) else network.batch
        found |= {(network.name, name): x for name, x in run(images, names, sharding).items()}
    return found


def _by_network(wanted: Sequence[Wanted]) -> Iterator[tuple[Features, tuple[str, ...]]]:
    for network in dict.fromkeys(each.network for each in wanted):
        yield network, tuple(each.output for each in wanted if each.network is network)


def _on_host(rows: list[int], outputs: dict[Key, jax.Array]):
    return rows, {key: to_host(values) for key, values in outputs.items()}


def _finished(found: Mapping[Key, _Output]) -> tuple[dict, dict]:
    """Statistics and rows; none of a process without images."""
    some = {key: output for key, output in found.items() if output.count}
    statistics = {key: output.stream.statistics() for key, output in some.items()}
    rows = {key: np.concatenate(o.rows) for key, o in some.items() if o.rows is not None}
    return statistics, rows


def _together(parts: Sequence[Collected]) -> Collected:
    """Of all processes, in the order of the side."""
    looks, order = Looks(), np.concatenate([part.order for part in parts])
    for part in parts:
        looks.add(part.looks)
    places, parts = np.argsort(order), [part for part in parts if len(part.order)]
    statistics = {
        key: functools.reduce(Statistics.merge, [part.statistics[key] for part in parts])
        for key in (parts[0].statistics if parts else ())
    }
    rows = {
        key: np.concatenate([part.rows[key] for part in parts])[places]
        for key in (parts[0].rows if parts else ())
    }
    return Collected(order[places], statistics, rows, looks)
