"""What a side of a comparison is: images that are read one by one, or their stored statistics."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int32, Shaped, UInt8

from sphere_jax.data.pipeline import to_host
from sphere_jax.evaluation.statistics import Statistics

Pixels = UInt8[np.ndarray, "h w 3"]
Then = Callable[[Any, Any], Any]  # of parameters and a batch of images, pure


class Pictures:
    """Images of any sizes, read by number, from several threads at once.

    size: (height, width) of all of them, where it is known before they are read.
    """

    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, row: int) -> Pixels:
        """RGB. Raises UserError, which names the image, for one that cannot be used."""
        raise NotImplementedError


class Stream:
    """Images that can only be read in order, once."""

    def __iter__(self) -> Iterator[Pixels]:
        raise NotImplementedError


class Drawn:
    """Images of one size that are made on the devices, in batches.

    made: how, for the protocol; it is complete once all are made. size: (height, width).
    sharding: of a batch.
    """

    made: Mapping[str, Any]
    size: tuple[int, int]
    sharding: NamedSharding

    def __len__(self) -> int:
        raise NotImplementedError

    def batches(self, then: Then, params: Any) -> Iterator[tuple[Shaped[Any, "b h w 3"], int, Any]]:
        """uint8 batches on the devices, how many of their first rows count, and `then(params,
        batch)`, which is compiled into the program that makes them."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class OnHost(Stream):
    """What is drawn, image by image on the host."""

    drawn: Drawn

    def __iter__(self) -> Iterator[Pixels]:
        for batch, count, _ in self.drawn.batches(lambda params, images: None, None):
            yield from to_host(batch)[:count]


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison.

    name: as the user gave it. kind: what it is, in words.
    images: None of stored statistics alone.
    labels: the classes of the images, if known.
    stored: statistics by (network, output); they stand for the whole set, of which `images` may
      then be a part. protocol: how they were made, where their file says.
    """

    name: str
    kind: str
    images: Pictures | Stream | Drawn | None
    labels: Int32[np.ndarray, " n"] | None = None
    stored: Mapping[tuple[str, str], Statistics] = dataclasses.field(default_factory=dict)
    protocol: Mapping[str, Any] | None = None
