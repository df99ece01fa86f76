"""The images of a side, read, decoded and fitted by threads ahead of the devices."""

import dataclasses
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from sphere_jax.common.cores import usable_cores
from sphere_jax.common.errors import UserError
from sphere_jax.data.array_mends import doubt_about_pixels
from sphere_jax.evaluation.fitting import Fitting
from sphere_jax.evaluation.sides.base import Pictures, Stream

BLOCK = 64  # images in a row that one of several processes reads
NAMED = 5  # images that a message lists
Pixels = UInt8[np.ndarray, "_h _w 3"]


@dataclasses.dataclass(frozen=True)
class Read:
    """An image, fitted; its place in the side; its size in the source; a digest of its content."""

    row: int
    pixels: Pixels
    size: tuple[int, int]
    digest: int

    @classmethod
    def of(cls, row: int, pixels: Pixels, fitting: Fitting) -> "Read":
        pixels = np.ascontiguousarray(pixels)
        hashed = hashlib.blake2b(pixels, digest_size=8, key=f"{pixels.shape}".encode())
        digest = int.from_bytes(hashed.digest(), "big")
        return cls(row, fitting(pixels), pixels.shape[:2], digest)


class Looks:
    """What is known of a side's images once they are read: sizes, copies, values, failures."""

    def __init__(self):
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.skipped: list[str] = []  # sentences
        self.digests: Counter[int] = Counter()
        self._ordinary, self._seen = False, np.zeros(256, bool)

    def see(self, found: Read) -> None:
        self.sizes[found.size] += 1
        self.digests[found.digest] += 1
        if not self._ordinary:
            self._seen[found.pixels.ravel()] = True
            self._ordinary = bool(self._seen[2:255].any() and self._seen.sum() > 1)

    def add(self, other: "Looks") -> None:
        """What another process has seen."""
        self.sizes += other.sizes
        self.digests += other.digests
        self.skipped += other.skipped
        self._seen |= other._seen
        self._ordinary |= other._ordinary

    @property
    def fingerprint(self) -> str:
        """Of the images' pixels, in any order and any container."""
        ordered = np.sort(np.array(list(self.digests.elements()), np.uint64))
        return hashlib.sha256(ordered.tobytes()).hexdigest()[:16]

    @property
    def copies(self) -> int:
        """Images that are there already."""
        return self.digests.total() - len(self.digests)

    def doubts(self) -> list[str]:
        """What looks wrong, a sentence each, without the name of the side."""
        said = []
        values = np.flatnonzero(self._seen).astype(np.uint8)
        if not self._ordinary and (doubt := doubt_about_pixels(values[None])):
            said.append(f"images {doubt}")
        if len(self.digests) == 1 < self.digests.total():
            said.append("all images are the same")
        elif self.copies:
            said.append(f"{self.copies:,} images are exact copies of others")
        if self.skipped:
            named = " ".join(self.skipped[:NAMED])
            more = " ..." if len(self.skipped) > NAMED else ""
            said.append(f"{len(self.skipped):,} images are left out: {named}{more}")
        return said


def read_ahead(
    images: Pictures | Stream, fitting: Fitting, count: int, looks: Looks, skip_bad: bool
) -> Iterator[Read]:
    """This process's share of the images, in order; `count` of them are being read meanwhile.

    Raises:
      UserError: an image cannot be used; if `skip_bad`, it is left out, and `looks` says so.
    """
    tasks = (partial(_taken, row, read, fitting) for row, read in _share(images))
    for future in ahead(tasks, count):
        yield from _arrived(future, looks, skip_bad)


def ahead(tasks: Iterable[Callable[[], Any]], count: int) -> Iterator[Future]:
    """Futures of `tasks` in their order; threads work on `count` of them meanwhile."""
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(min(32, 2 * usable_cores())) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) >= count:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _share(images: Pictures | Stream) -> Iterator[tuple[int, Callable[[], Pixels]]]:
    """Rows of this process, and how each is read."""
    processes, own = jax.process_count(), jax.process_index()
    if isinstance(images, Pictures):
        for row in range(len(images)):
            if row // BLOCK % processes == own:
                yield row, partial(images.read, row)
        return
    for row, pixels in enumerate(images):
        if row // BLOCK % processes == own:
            yield row, lambda pixels=pixels: pixels


def _taken(row: int, read: Callable[[], Pixels], fitting: Fitting) -> Read:
    return Read.of(row, read(), fitting)


def _arrived(future: Future, looks: Looks, skip_bad: bool) -> Iterator[Read]:
    try:
        found = future.result()
    except UserError as error:
        if not skip_bad:
            raise UserError(
                f"{str(error).rstrip('.')}; --skip_bad leaves such images out."
            ) from error
        looks.skipped.append(str(error))
        return
    looks.see(found)
    yield found
