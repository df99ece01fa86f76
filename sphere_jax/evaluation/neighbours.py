"""Sets of features compared by nearest neighbours: precision, recall, density and coverage.

The ball of a point reaches to its k-th nearest neighbour in its own set, itself not counted. All
four numbers say which points lie in balls of the other set. They take arrays, never networks.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Integer, Shaped

from sphere_jax.common.progress import Progress
from sphere_jax.evaluation.preconditions import require_rows
from sphere_jax.evaluation.tiles import Points, cuts, exact, on_all_cores, tile, where

SPARE = 4  # neighbours that float32 finds beyond the k-th, to choose from exactly
RIM = 1e-9  # distances are rounded: a point on the rim of a ball counts as inside
WORTHWHILE = 1 / 20  # part of a tile that is left out if its pairs can tell nothing
MANY = 1 / 64  # part of a tile's pairs to be looked at again, above which the tile is of float64


def precision_recall(
    real: Shaped[np.ndarray, "..."], generated: Shaped[np.ndarray, "..."], k: int = 3
) -> dict[str, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991).

    Precision is the part of `generated` inside a ball of `real`; recall the part of `real` inside a
    ball of `generated`. Use sets of equal size: a larger set has smaller balls but more of them.

    Args:
      real: features (N, F). generated: features (M, F). k: neighbours, not counting the point.

    Returns:
      {"precision": in 0..1, "recall": in 0..1}

    Raises:
      ValueError: fewer than k + 1 rows, a value that is not finite, or k < 1.
    """
    a, b = _points(real, generated, k)
    in_generated, in_real = _inside(a, b, radii(a, k), radii(b, k))
    return {"precision": float(np.mean(in_real)), "recall": float(np.mean(in_generated))}


def density_coverage(
    real: Shaped[np.ndarray, "..."], generated: Shaped[np.ndarray, "..."], k: int = 5
) -> dict[str, float]:
    """Density and coverage (Naeem et al. 2020, arXiv 2002.09797).

    Density is the number of balls of `real` about a generated point, over k, on average: 1 is
    expected of equal distributions, and it may exceed 1. Coverage is the part of the balls of
    `real` that hold a generated point. Balls are of real points alone, so that an outlier among the
    generated ones does not count.

    Args, Raises: those of `precision_recall`.

    Returns:
      {"density": >= 0, "coverage": in 0..1}
    """
    a, b = _points(real, generated, k)
    balls, held = _counted(a, b, radii(a, k))
    return {"density": float(np.mean(balls) / k), "coverage": float(np.mean(held))}


def _points(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[Points, Points]:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    real = require_rows(real, "real features", at_least=k + 1)
    generated = require_rows(generated, "generated features", at_least=k + 1)
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"real and generated features have lengths {real.shape[1]} and {generated.shape[1]}."
        )
    points = Points(real)
    return points, Points(generated, like=points)


def radii(points: Points, k: int) -> Float64[np.ndarray, " n"]:
    """Squared distance of each point to its k-th nearest neighbour, itself left out.

    A tile serves its rows and its columns, for distances are symmetric.
    """
    nearest = Nearest(len(points), min(k + SPARE, len(points) - 1))

    def found(rows: slice, columns: slice) -> list[Hits]:
        squared = tile(points, points, rows, columns)
        if rows == columns:
            np.fill_diagonal(squared, np.inf)
            return [nearest.closer(rows, columns, squared)]
        return [
            nearest.closer(rows, columns, squared),
            nearest.closer(columns, rows, squared, by_column=True),
        ]

    parts = list(cuts(len(points)))
    tiles = [(rows, columns) for i, rows in enumerate(parts) for columns in parts[i:]]
    progress = Progress("neighbours: tile", len(tiles))
    for done, hits in enumerate(on_all_cores(found, tiles)):
        progress.done(done)
        for each in hits:
            nearest.add(each)
    return _settled(points, nearest, k)


class Hits(NamedTuple):
    """Distances of points of the slice `rows`: of row `row` of it to the point `index`."""

    rows: slice
    row: Integer[np.ndarray, " h"]
    index: Integer[np.ndarray, " h"]
    squared: Float[np.ndarray, " h"]


class Nearest:
    """The `keep` nearest so far of each of `count` points: values and indices (count, keep)."""

    def __init__(self, count: int, keep: int):
        self.keep = keep
        self.values = np.full((count, self.keep), np.inf, np.float32)
        self.indices = np.zeros((count, self.keep), np.int64)

    def closer(
        self,
        rows: slice,
        columns: slice,
        squared: Float[np.ndarray, "_r _c"],
        by_column: bool = False,
    ) -> Hits:
        """Those distances of the points `rows` to `columns` that may be among their nearest; what
        is known of them may be of any earlier time. A tile `by_column` is (columns, rows)."""
        bound = self.values[rows].max(1)
        if np.isinf(bound).any() and squared.shape[0 if by_column else 1] > self.keep:
            of_points = np.ascontiguousarray(squared.T) if by_column else squared
            bound = np.partition(of_points, self.keep - 1, axis=1)[:, self.keep - 1]
        row, column = where(squared <= bound.reshape((1, -1) if by_column else (-1, 1)))
        values = squared[row, column]
        if by_column:
            order = np.argsort(column, kind="stable")
            row, column, values = column[order], row[order], values[order]
        return Hits(rows, row, column + columns.start, values)

    def add(self, hits: Hits) -> None:
        """Keeps the nearest of those known and these."""
        if len(hits.row) == 0:
            return
        values, indices = self.values[hits.rows], self.indices[hits.rows]
        counts = np.bincount(hits.row, minlength=len(values))
        place = np.arange(len(hits.row)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = len(values), counts.max()
        closer, found = np.full(shape, np.inf, np.float32), np.zeros(shape, np.int64)
        closer[hits.row, place], found[hits.row, place] = hits.squared, hits.index
        values = np.concatenate([values, closer], axis=1)
        indices = np.concatenate([indices, found], axis=1)
        best = np.argpartition(values, self.keep - 1, axis=1)[:, : self.keep]
        self.values[hits.rows] = np.take_along_axis(values, best, axis=1)
        self.indices[hits.rows] = np.take_along_axis(indices, best, axis=1)


def _settled(points: Points, nearest: Nearest, k: int) -> np.ndarray:
    """The k-th smallest exact distance (N,), from neighbours that float32 chose."""
    count, keep = nearest.values.shape
    squared = nearest.values.astype(np.float64)
    error = points.error() * (points.squares + points.squares.max()).reshape(-1, 1)
    kth = np.partition(squared, k - 1, axis=1)[:, k - 1 : k]
    smaller, larger = squared < kth - 2 * error, squared > kth + 2 * error
    squared[smaller], squared[larger] = -np.inf, np.inf  # it is none of these
    row, column = np.nonzero(~(smaller | larger))
    index, parts = nearest.indices[row, column], [(part,) for part in cuts(len(row))]
    found = on_all_cores(lambda part: exact(points, points, row[part], index[part]), parts)
    squared[row, column] = np.concatenate(list(found))
    found = np.partition(squared, k - 1, axis=1)[:, k - 1]
    if keep < count - 1:  # others may be as near, where none of those kept is larger for certain
        doubtful = np.flatnonzero(~larger.any(1))
        for part in cuts(len(doubtful)):
            found[doubtful[part]] = _exactly(points, doubtful[part], k)
    return found


def _exactly(points: Points, chosen: np.ndarray, k: int) -> np.ndarray:
    """`radii` of some points with distances to all in float64."""
    some = Points(points.rows[chosen], like=points)
    squared = np.concatenate(
        [tile(some, points, slice(None), part, np.float64) for part in cuts(len(points))], axis=1
    )
    squared[np.arange(len(chosen)), chosen] = np.inf
    near = np.argpartition(squared, k - 1, axis=1)[:, :k]
    again = exact(points, points, np.repeat(chosen, k), near.reshape(-1))
    return again.reshape(len(chosen), k).max(1)


class NearestReference(NamedTuple):
    """distances, indices: (N,) of the nearest reference point to each sample. within_reference:
    (M,) the distance of each reference point to the nearest other one."""

    distances: Float64[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]
    within_reference: Float64[np.ndarray, " m"]


def nearest_reference(
    samples: Shaped[np.ndarray, "..."], reference: Shaped[np.ndarray, "..."]
) -> NearestReference:
    """Distances of features (N, F) to their nearest ones of (M, F), and within the latter.

    Raises:
      ValueError: fewer than two reference rows, or a value that is not finite.
    """
    samples = require_rows(samples, "sample features", at_least=1)
    others = Points(require_rows(reference, "reference features", at_least=2))
    points = Points(samples, like=others)
    nearest = Nearest(len(points), min(1 + SPARE, len(others)))

    def found(rows: slice, columns: slice) -> Hits:
        return nearest.closer(rows, columns, tile(points, others, rows, columns))

    for hits in on_all_cores(found, itertools.product(cuts(len(points)), cuts(len(others)))):
        nearest.add(hits)
    first = np.repeat(np.arange(len(points)), nearest.keep)
    squared = exact(points, others, first, nearest.indices.reshape(-1))
    best = squared.reshape(nearest.indices.shape).argmin(1).reshape(-1, 1)
    squared = np.take_along_axis(squared.reshape(nearest.indices.shape), best, axis=1)[:, 0]
    indices = np.take_along_axis(nearest.indices, best, axis=1)[:, 0]
    scale = np.sqrt(others.unit)
    return NearestReference(np.sqrt(squared) * scale, indices, np.sqrt(radii(others, 1)) * scale)


def _inside(
    real: Points, generated: Points, real_radii: np.ndarray, generated_radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which real points (N,) lie in any generated ball, and which generated ones (M,) in a real."""
    in_generated, in_real = np.zeros(len(real), bool), np.zeros(len(generated), bool)

    def found(rows: slice, columns: slice) -> list[tuple[np.ndarray, np.ndarray]]:
        seen = []
        for i, j in _open(rows, columns, in_generated, in_real):
            squared = tile(real, generated, i, j)
            row, _ = _within(real, generated, i, j, squared, generated_radii[j], 1)
            _, column = _within(real, generated, i, j, squared, real_radii[i], 0)
            seen.append((row, column))
        return seen

    tiles = list(itertools.product(cuts(len(real)), cuts(len(generated))))
    progress = Progress("compared: tile", len(tiles))
    for done, seen in enumerate(on_all_cores(found, tiles)):
        progress.done(done)
        for row, column in seen:
            in_generated[row], in_real[column] = True, True
    return in_generated, in_real


def _open(rows: slice, columns: slice, rows_done: np.ndarray, columns_done: np.ndarray) -> list:
    """Parts of a tile whose pairs may still tell anything: all but those of a row and a column that
    are both known to lie inside. What is known may be of any earlier time."""
    done, columns_open = rows_done[rows], np.flatnonzero(~columns_done[columns])
    if done.mean() * (1 - len(columns_open) / _size(columns)) < WORTHWHILE:
        return [(rows, columns)]
    some = (np.flatnonzero(~done) + rows.start, columns)
    others = (np.flatnonzero(done) + rows.start, columns_open + columns.start)
    return [(i, j) for i, j in (some, others) if _size(i) and _size(j)]


def _size(part: slice | np.ndarray) -> int:
    return part.stop - part.start if isinstance(part, slice) else len(part)


def _counted(
    real: Points, generated: Points, real_radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number of real balls about each generated point (M,); which of them hold any (N,)."""
    around, held = np.zeros(len(generated), np.int64), np.zeros(len(real), bool)

    def found(rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        squared = tile(real, generated, rows, columns)
        return _within(real, generated, rows, columns, squared, real_radii[rows], 0)

    tiles = itertools.product(cuts(len(real)), cuts(len(generated)))
    for row, column in on_all_cores(found, tiles):
        np.add.at(around, column, 1)
        held[row] = True
    return around, held


def _within(
    a: Points,
    b: Points,
    rows: slice | np.ndarray,
    columns: slice | np.ndarray,
    squared: np.ndarray,
    radii: np.ndarray,
    axis: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the pairs whose distance is within the radius of the row (axis 0) or column."""
    reach = radii + RIM * (1 / a.unit + radii)
    mine, others = (a.squares[rows], b.squares[columns])[:: 1 if axis == 0 else -1]
    error = a.error(squared.dtype.type) * (mine + others.max() + reach)
    most = (reach + error).astype(squared.dtype).reshape((-1, 1) if axis == 0 else (1, -1))
    row, column = where(squared <= most)
    ball = row if axis == 0 else column
    doubtful = np.flatnonzero(squared[row, column] > (reach - error)[ball])
    if squared.dtype == np.float32 and len(doubtful) > MANY * squared.size:
        squared = tile(a, b, rows, columns, np.float64)
        return _within(a, b, rows, columns, squared, radii, axis)
    first, second = np.arange(len(a))[rows][row], np.arange(len(b))[columns][column]
    kept = np.ones(len(row), bool)
    distances = exact(a, b, first[doubtful], second[doubtful])
    kept[doubtful] = distances <= reach[ball[doubtful]]
    return first[kept], second[kept]
