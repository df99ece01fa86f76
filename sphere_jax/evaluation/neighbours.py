"""Sets of features compared by nearest neighbours: precision, recall, density and coverage.

The ball of a point reaches to its k-th nearest neighbour in its own set, itself not counted. All
four numbers say which points lie in balls of the other set. They take arrays, never networks.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped

from sphere_jax.common.progress import Progress
from sphere_jax.evaluation.preconditions import require_rows
from sphere_jax.evaluation.tiles import Points, cuts, exact, tile

SPARE = 4  # neighbours that float32 finds beyond the k-th, to choose from exactly
RIM = 1e-9  # distances are rounded: a point on the rim of a ball counts as inside
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
    found = _compared(real, generated, k, both=True)
    return {
        "precision": float(np.mean(found.balls_around > 0)),
        "recall": float(np.mean(found.in_generated)),
    }


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
    found = _compared(real, generated, k, both=False)
    return {
        "density": float(np.mean(found.balls_around) / k),
        "coverage": float(np.mean(found.holds_generated)),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Balls:
    """Which points lie in balls of the other set.

    balls_around: (M,) number of real balls about each generated point.
    holds_generated: (N,) whether a real ball holds any generated point.
    in_generated: (N,) whether a real point lies in any generated ball; None if not asked for.
    """

    balls_around: Int[np.ndarray, " m"]
    holds_generated: Bool[np.ndarray, " n"]
    in_generated: Bool[np.ndarray, " n"] | None


def _compared(real: np.ndarray, generated: np.ndarray, k: int, both: bool) -> Balls:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    real = require_rows(real, "real features", at_least=k + 1)
    generated = require_rows(generated, "generated features", at_least=k + 1)
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"real and generated features have lengths {real.shape[1]} and {generated.shape[1]}."
        )
    a = Points(real)
    b = Points(generated, like=a)
    return members(a, b, radii(a, k), radii(b, k) if both else None)


def radii(points: Points, k: int) -> Float64[np.ndarray, " n"]:
    """Squared distance of each point to its k-th nearest neighbour, itself left out.

    A tile serves its rows and its columns, for distances are symmetric.
    """
    nearest = Nearest(len(points), k + SPARE)
    parts = list(cuts(len(points)))
    progress = Progress("neighbours of", len(points))
    for i, rows in enumerate(parts):
        progress.done(rows.start)
        for columns in parts[i:]:
            squared = tile(points, points, rows, columns)
            if rows == columns:
                np.fill_diagonal(squared, np.inf)
            else:
                nearest.add(columns, rows, squared.T)
            nearest.add(rows, columns, squared)
    return _settled(points, nearest, k)


class Nearest:
    """The `keep` nearest so far of each of `count` points: values and indices (count, keep)."""

    def __init__(self, count: int, keep: int):
        self.keep = min(keep, count - 1)
        self.values = np.full((count, self.keep), np.inf, np.float32)
        self.indices = np.zeros((count, self.keep), np.int64)

    def add(self, rows: slice, columns: slice, squared: Float[np.ndarray, "r c"]) -> None:
        """Squared distances of some points, `rows`, to others, `columns`."""
        values, indices = self.values[rows], self.indices[rows]
        if np.isinf(values[0, -1]) or squared.shape[1] <= self.keep:  # as good as none yet
            closer, found = squared, np.broadcast_to(np.arange(squared.shape[1]), squared.shape)
            if squared.shape[1] > self.keep:
                found = np.argpartition(squared, self.keep - 1, axis=1)[:, : self.keep]
                closer = np.take_along_axis(squared, found, axis=1)
        else:
            mask = np.ascontiguousarray(squared < values.max(1, keepdims=True))
            row, column = np.nonzero(mask)
            if len(row) == 0:
                return
            counts = np.bincount(row, minlength=len(values))
            place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            closer = np.full((len(values), counts.max()), np.inf, np.float32)
            found = np.zeros(closer.shape, np.int64)
            closer[row, place], found[row, place] = squared[row, column], column
        values = np.concatenate([values, closer], axis=1)
        indices = np.concatenate([indices, found + columns.start], axis=1)
        best = np.argpartition(values, self.keep - 1, axis=1)[:, : self.keep]
        self.values[rows] = np.take_along_axis(values, best, axis=1)
        self.indices[rows] = np.take_along_axis(indices, best, axis=1)


def _settled(points: Points, nearest: Nearest, k: int) -> np.ndarray:
    """The k-th smallest exact distance (N,), from neighbours that float32 chose."""
    count, keep = nearest.values.shape
    first = np.repeat(np.arange(count), keep)
    squared = exact(points, points, first, nearest.indices.reshape(-1)).reshape(count, keep)
    found = np.partition(squared, k - 1, axis=1)[:, k - 1]
    if keep == count - 1:
        return found
    # What was left out is as far as the farthest found, but for its error.
    error = points.error() * (points.squares + points.squares.max())
    doubtful = np.flatnonzero(found > nearest.values.max(1) - error)
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


def members(
    real: Points,
    generated: Points,
    real_radii: Float64[np.ndarray, " n"],
    generated_radii: Float64[np.ndarray, " m"] | None,
) -> Balls:
    """Which points lie in balls, of squared radii, of the other set; one pass over all pairs."""
    around = np.zeros(len(generated), np.int64)
    holds, inside = np.zeros(len(real), bool), np.zeros(len(real), bool)
    progress = Progress("compared", len(real))
    for rows in cuts(len(real)):
        progress.done(rows.start)
        for columns in cuts(len(generated)):
            squared = tile(real, generated, rows, columns)
            within = _within(real, generated, rows, columns, squared, real_radii[rows], 0)
            around[columns] += np.count_nonzero(within, axis=0)
            holds[rows] |= within.any(1)
            if generated_radii is not None:
                reach = generated_radii[columns]
                within = _within(real, generated, rows, columns, squared, reach, 1)
                inside[rows] |= within.any(1)
    return Balls(around, holds, inside if generated_radii is not None else None)


def _within(a, b, rows, columns, squared, radii, axis, dtype=np.float32) -> np.ndarray:
    """(rows, columns), whether the distance is within the radius of the row or column."""
    shape = (-1, 1) if axis == 0 else (1, -1)
    reach = radii + RIM * (1 / a.unit + radii)
    mine, others = (a.squares[rows], b.squares[columns])[:: 1 if axis == 0 else -1]
    error = a.error(dtype) * (mine + others.max() + reach)
    within = squared <= (reach - error).astype(dtype).reshape(shape)
    maybe = (squared <= (reach + error).astype(dtype).reshape(shape)) ^ within
    if dtype == np.float32 and np.count_nonzero(maybe) > MANY * maybe.size:
        squared = tile(a, b, rows, columns, np.float64)
        return _within(a, b, rows, columns, squared, radii, axis, np.float64)
    row, column = np.nonzero(maybe)
    distances = exact(a, b, row + rows.start, column + columns.start)
    within[row, column] = distances <= reach[row if axis == 0 else column]
    return within
