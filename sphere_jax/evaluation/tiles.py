"""Squared distances between sets of points, tile by tile: quick in float32, exact where it matters.

A tile is |a|^2 + |b|^2 - 2 a.b about a common origin, by one float32 product. `Points.error` bounds
what rounding does to it. Whoever compares or orders distances looks again at the pairs that it
could change, with `exact`; results are then those of exact distances, and depend neither on tiles
nor on the order of points.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Integer
from threadpoolctl import threadpool_limits  # scikit-learn needs it

from sphere_jax.common.cores import usable_cores

TILE = 1024  # rows and columns of a tile
Part = slice | Integer[np.ndarray, " _r"]  # some rows
PAIRS = 1024  # pairs whose exact distances are taken at once


def cuts(count: int, size: int = 0) -> Iterator[slice]:
    """0..count in slices of `size`, or of `TILE`."""
    size = size or TILE
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


class Points:
    """Rows (N, F) about an origin and on a scale in which float32 loses few digits.

    centred: the rows so, in float32, the only copy.
    squares: (N,) squared lengths about the origin; distances of tiles have the same unit, `unit`.

    `like` gives the origin and scale of the points with which they are compared.
    """

    def __init__(self, rows: Float[np.ndarray, "n f"], like: "Points | None" = None):
        self.rows = rows
        # In float32, so that it is the same in both precisions.
        self.origin = mean(rows).astype(np.float32).reshape(1, -1) if like is None else like.origin
        self.unit, parts = 1.0, [(part,) for part in cuts(len(rows))]
        squares = np.concatenate(list(on_all_cores(self._squares, parts)))
        self.unit = like.unit if like else float(squares.max()) or 1.0
        self.squares = squares / self.unit
        self.centred = np.empty(rows.shape, np.float32)
        for _ in on_all_cores(self._centre, parts):
            pass

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: Part, dtype: type = np.float64) -> Float[np.ndarray, "r f"]:
        """Some of the rows, centred and scaled."""
        if dtype == np.float32:
            return self.centred[rows]
        centred = self.rows[rows] - self.origin.astype(np.float64)
        centred /= np.sqrt(self.unit)
        return centred

    def _squares(self, part: slice) -> np.ndarray:
        exact = self.part(part)
        return np.einsum("nf,nf->n", exact, exact)

    def _centre(self, part: slice) -> None:
        centred = self.centred[part]
        np.subtract(self.rows[part], self.origin, out=centred, casting="same_kind")
        centred *= np.float32(1 / np.sqrt(self.unit))

    def error(self, dtype: type = np.float32) -> float:
        """Of a squared distance in a tile, as a part of |a|^2 + |b|^2.

        Rounding errors of a sum of F products grow as sqrt(F) where their signs are random; this is
        many times that.
        """
        return float((32 + 8 * np.sqrt(self.rows.shape[1])) * np.finfo(dtype).eps)


def tile(
    a: Points, b: Points, rows: Part, columns: Part, dtype: type = np.float32
) -> Float[np.ndarray, "r c"]:
    """Squared distances of rows of `a` and of `b`, in their unit."""
    squared = a.part(rows, dtype) @ b.part(columns, dtype).T
    squared *= -2
    squared += a.squares[rows].astype(dtype).reshape(-1, 1)
    squared += b.squares[columns].astype(dtype).reshape(1, -1)
    return squared


def where(mask: Bool[np.ndarray, "r c"]) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """`np.nonzero`, ten times as fast where little is true."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def exact(
    a: Points, b: Points, first: Integer[np.ndarray, " p"], second: Integer[np.ndarray, " p"]
) -> Float64[np.ndarray, " p"]:
    """Squared distances of pairs of rows by their indices, in the unit of tiles."""
    found = np.empty(len(first))
    for part in cuts(len(first), PAIRS):
        apart = a.rows[first[part]].astype(np.float64) - b.rows[second[part]]
        found[part] = np.square(apart).sum(1)
    return found / a.unit


def mean(rows: Float[np.ndarray, "n f"]) -> Float64[np.ndarray, " f"]:
    """Mean of the rows, summed in float64."""
    return sum(rows[part].sum(0, dtype=np.float64) for part in cuts(len(rows))) / len(rows)


def on_all_cores(function: Callable[..., Any], tiles: Iterable[tuple]) -> Iterator:
    """`function(rows, columns)` of each tile, or of other arguments, in order. Each core takes its
    own tiles, since only the product inside would use several."""
    tiles, cores = list(tiles), usable_cores()
    if len(tiles) == 1 or cores == 1:
        yield from itertools.starmap(function, tiles)
        return
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores) as pool:
        yield from pool.map(lambda each: function(*each), tiles)
