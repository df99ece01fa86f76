"""Maximum mean discrepancy of two sets of features, from sums of a kernel over all pairs.

The kernel is taken tile by tile, in float32, and summed in float64. Sums by row give the mean and
its standard error, so that nothing is drawn at random and the order of rows does not matter.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Float64

from sphere_jax.common.progress import Progress
from sphere_jax.evaluation.preconditions import require_rows
from sphere_jax.evaluation.tiles import Points, cuts, on_all_cores, tile

Kernel = Callable[[slice, slice], Float32[np.ndarray, "r c"]]  # of rows and columns


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Of a kernel, for each row over the other set; in `xx` and `yy` over the others of its own.

    xx, xy: (N,). yy, yx: (M,).
    """

    xx: Float64[np.ndarray, " n"]
    yy: Float64[np.ndarray, " m"]
    xy: Float64[np.ndarray, " n"]
    yx: Float64[np.ndarray, " m"]

    def unbiased(self) -> float:
        """MMD^2 of pairs of different rows."""
        n, m = len(self.xx), len(self.yy)
        own = self.xx.sum() / (n * (n - 1)) + self.yy.sum() / (m * (m - 1))
        return float(own - 2 * self.xy.sum() / (n * m))

    def biased(self, diagonal: float) -> float:
        """MMD^2 of all pairs, each row with itself too, where the kernel is `diagonal`."""
        n, m = len(self.xx), len(self.yy)
        own = (self.xx.sum() / n + diagonal) / n + (self.yy.sum() / m + diagonal) / m
        return float(own - 2 * self.xy.sum() / (n * m))

    def standard_error(self) -> float:
        """Of either, by the variance of what a single row contributes (first order)."""
        n, m = len(self.xx), len(self.yy)
        of_x = 2 * (self.xx / (n - 1) - self.xy / m)
        of_y = 2 * (self.yy / (m - 1) - self.yx / n)
        return float(np.sqrt(of_x.var(ddof=1) / n + of_y.var(ddof=1) / m))


def cubic_sums(x: Float[np.ndarray, "n f"], y: Float[np.ndarray, "m f"]) -> Sums:
    """Of (a.b / F + 1)^3, the kernel of KID.

    Raises:
      ValueError: a value is not finite, or there are fewer than two rows.
    """
    x, y = require_rows(x, "sample features", 2), require_rows(y, "reference features", 2)

    def between(a: np.ndarray, b: np.ndarray) -> Kernel:
        def kernel(rows: slice, columns: slice) -> np.ndarray:
            own, other = a[rows].astype(np.float32), b[columns].astype(np.float32)
            values = (own / np.float32(a.shape[1])) @ other.T
            values += 1
            square = values * values
            square *= values
            return square

        return kernel

    return _sums(len(x), len(y), between(x, x), between(y, y), between(x, y))


def gaussian_sums(x: Float[np.ndarray, "n f"], y: Float[np.ndarray, "m f"], sigma: float) -> Sums:
    """Of exp(-|a - b|^2 / (2 sigma^2)) - 1, whose constant no discrepancy sees: without it the
    small differences of a wide kernel lose no digits.

    Raises:
      ValueError: a value is not finite, or there are fewer than two rows.
    """
    a = Points(require_rows(x, "sample features", 2))
    b = Points(require_rows(y, "reference features", 2), like=a)

    def between(a: Points, b: Points) -> Kernel:
        def kernel(rows: slice, columns: slice) -> np.ndarray:
            values = tile(a, b, rows, columns)
            values *= np.float32(-a.unit / (2 * sigma**2))
            return np.expm1(values, out=values)

        return kernel

    return _sums(len(x), len(y), between(a, a), between(b, b), between(a, b))


def _sums(n: int, m: int, within_x: Kernel, within_y: Kernel, between: Kernel) -> Sums:
    xx, yy, xy, yx = np.zeros(n), np.zeros(m), np.zeros(n), np.zeros(m)
    for own, kernel in ((xx, within_x), (yy, within_y)):
        parts = list(cuts(len(own)))
        tiles = [(rows, columns) for i, rows in enumerate(parts) for columns in parts[i:]]
        _add(kernel, tiles, own, own, without_diagonal=True)
    _add(between, list(itertools.product(cuts(n), cuts(m))), xy, yx)
    return Sums(xx, yy, xy, yx)


def _add(kernel: Kernel, tiles: list, by_row, by_column, without_diagonal: bool = False) -> None:
    def summed(rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        values = kernel(rows, columns)
        if without_diagonal and rows == columns:
            np.fill_diagonal(values, 0)
        return values.sum(1, dtype=np.float64), values.sum(0, dtype=np.float64)

    progress = Progress("kernel: tile", len(tiles))
    for done, (of_rows, of_columns) in enumerate(on_all_cores(summed, tiles)):
        progress.done(done)
        rows, columns = tiles[done]
        by_row[rows] += of_rows
        if not (without_diagonal and rows == columns):  # a diagonal tile is symmetric
            by_column[columns] += of_columns
