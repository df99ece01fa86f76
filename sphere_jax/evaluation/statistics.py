"""Mean and covariance of features, one batch at a time, in float64.

Each batch is centred on its own mean before it is squared and batches are merged by the pairwise
update of Chan, Golub and LeVeque (1979), so the result neither depends on the batch size nor loses
digits to a large mean. `Stream` takes batches of any sizes to the same bits.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import write_npz
from sphere_jax.common.forms import misfit
from sphere_jax.data.npz_files import read_npz
from sphere_jax.evaluation.preconditions import require_features

BLOCK = 1024  # rows that a stream collects before it takes their moments
PROTOCOL = "protocol"  # array of a file: how its statistics were made, as JSON
MADE = {
    "networks?": {str: {"outputs": [str], "fingerprint?": str}},
    "image_size?": lambda size: size is None or [type(side) for side in size] == [int, int],
}


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """First two moments of `n` feature vectors of length F.

    `mu` is the mean, `scatter` the sum of outer products about it. A file of another tool holds no
    `n`: it is None then, and `scatter` is the covariance itself.
    """

    n: int | None
    mu: Float64[np.ndarray, " f"]
    scatter: Float64[np.ndarray, "f f"]

    @classmethod
    def empty(cls, size: int) -> "Statistics":
        """Of no vectors of length `size`: where a stream starts."""
        return cls(0, np.zeros(size), np.zeros((size, size)))

    @classmethod
    def of(cls, features: Shaped[np.ndarray, "..."]) -> "Statistics":
        """Of the rows of (N, F).

        Raises:
          ValueError: no rows, or a value is not finite.
        """
        features = require_features(features, "features")
        mu = features.mean(0)
        centred = features - mu.reshape(1, -1)
        return cls(len(features), mu, centred.T @ centred)

    def update(
        self, features: Shaped[np.ndarray, "b f"], mask: Shaped[np.ndarray, " b"] | None = None
    ) -> "Statistics":
        """With the rows of (B, F) added, or those where the mask (B,) is true."""
        if mask is not None:
            features = np.asarray(features)[np.asarray(mask, bool)]
        return self.merge(Statistics.of(features)) if len(features) else self

    def merge(self, other: "Statistics") -> "Statistics":
        """Of both sets of vectors together.

        Raises:
          ValueError: the vectors have different lengths, or the number of either is not known.
        """
        if self.n is None or other.n is None:
            raise ValueError("Statistics of an unknown number of vectors cannot be merged.")
        if self.mu.shape != other.mu.shape:
            raise ValueError(
                f"Features of length {self.mu.size} and {other.mu.size} cannot be merged."
            )
        n = self.n + other.n
        if n == 0:
            return self
        shift = other.mu - self.mu
        mu = self.mu + shift * (other.n / n)
        between = np.outer(shift, shift) * (self.n * other.n / n)
        return Statistics(n, mu, self.scatter + other.scatter + between)

    @property
    def sigma(self) -> Float64[np.ndarray, "f f"]:
        """Unbiased covariance, as `np.cov` has it.

        Raises:
          ValueError: fewer than two vectors.
        """
        if self.n is None:
            return self.scatter
        if self.n < 2:
            raise ValueError(f"A covariance needs at least 2 feature vectors, not {self.n}.")
        return self.scatter / (self.n - 1)

    def arrays(self, suffix: str = "") -> dict[str, Shaped[np.ndarray, "..."]]:
        """`mu` and `sigma`, as files of all tools have them, and `n` where it is known.

        `suffix` sets several statistics of a file apart: ADM's files have `mu_s` and `sigma_s`,
        with the suffix "_s", of the spatial features.
        """
        count = {} if self.n is None else {f"n{suffix}": np.asarray(self.n)}
        return {f"mu{suffix}": self.mu, f"sigma{suffix}": self.sigma, **count}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Shaped[np.ndarray, "..."]], suffix: str = ""
    ) -> "Statistics":
        """What `arrays` gave, or pytorch-fid's and ADM's files hold. `mu` may have shape (1, F).

        Raises:
          ValueError: no mean (F,) with a covariance (F, F), or they are not finite.
        """
        given = [np.asarray(arrays[f"{key}{suffix}"]) for key in ("mu", "sigma")]
        if not all(array.dtype.kind in "iuf" for array in given):
            raise ValueError(f"mu{suffix} and sigma{suffix} must be numbers.")
        mu, sigma = (array.astype(np.float64) for array in given)
        mu = mu.reshape(-1) if mu.ndim == 2 and len(mu) == 1 else mu
        if mu.ndim != 1 or sigma.shape != (mu.size, mu.size):
            raise ValueError(
                f"mu{suffix} and sigma{suffix} must have shapes (F,) and (F, F), not {mu.shape} "
                f"and {sigma.shape}."
            )
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise ValueError(f"mu{suffix} and sigma{suffix} must not hold NaN or infinity.")
        n = None
        if f"n{suffix}" in arrays:
            count = np.asarray(arrays[f"n{suffix}"])
            if count.size != 1 or count.dtype.kind not in "iu" or count.item() < 2:
                raise ValueError(f"n{suffix} must be a whole number, 2 or more.")
            n = count.item()
        return cls(n, mu, sigma if n is None else sigma * (n - 1))

    def save(self, path: str | os.PathLike, protocol: dict[str, Any]) -> None:
        """An `.npz` with the field's usual `mu` and `sigma`, and `n` and `protocol` (JSON)."""
        write_npz(path, {**self.arrays(), PROTOCOL: np.asarray(json.dumps(protocol))})

    @classmethod
    def load(
        cls, path: str | os.PathLike, suffix: str = ""
    ) -> tuple["Statistics", dict[str, Any] | None]:
        """The statistics and the protocol that `save` wrote; of another tool's file None.

        Raises:
          UserError: the file is not there, is damaged, or lacks `mu` or `sigma`.
        """
        needed = (f"mu{suffix}", f"sigma{suffix}")
        wanted = (*needed, f"n{suffix}", PROTOCOL)  # not the images of ADM's files
        file = read_npz(os.fspath(path), needed, wanted)
        try:
            statistics = cls.from_arrays(file, suffix)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
        return statistics, protocol_in(file, path)


def protocol_in(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]], path: str | os.PathLike
) -> dict | None:
    """How statistics were made, as their file at `path` says it; None if it does not.

    Raises:
      UserError: what it says is damaged.
    """
    if PROTOCOL not in arrays:
        return None
    try:
        found = json.loads(str(arrays[PROTOCOL]))
        wrong = misfit(found, MADE)
    except (ValueError, RecursionError) as error:
        wrong = str(error)
    if wrong:
        raise UserError(f"{PROTOCOL!r} of {path} is damaged ({wrong}); make the statistics again.")
    return found


class Stream:
    """Statistics of rows that come in batches: bit for bit the same however they are cut.

    Rows are collected into blocks of `BLOCK`, whose moments are taken and merged; a merge of two
    covariances costs as much as many rows.
    """

    def __init__(self):
        self._rows: list[np.ndarray] = []
        self._merged: Statistics | None = None

    def add(
        self, features: Shaped[np.ndarray, "b f"], mask: Shaped[np.ndarray, " b"] | None = None
    ) -> None:
        """Adds the rows of (B, F), or those where the mask (B,) is true."""
        rows = np.asarray(features)
        self._rows.append(rows if mask is None else rows[np.asarray(mask, bool)])
        if sum(map(len, self._rows)) >= BLOCK:
            rows = np.concatenate(self._rows)
            whole = len(rows) - len(rows) % BLOCK
            for start in range(0, whole, BLOCK):
                self._merged = self._with(rows[start : start + BLOCK])
            self._rows = [rows[whole:]]

    def statistics(self) -> Statistics:
        """Of all rows so far.

        Raises:
          ValueError: there are none, or a value is not finite.
        """
        rows = np.concatenate(self._rows) if self._rows else np.zeros((0, 0))
        if self._merged is not None and len(rows) == 0:
            return self._merged
        return self._with(rows)

    def _with(self, rows: np.ndarray) -> Statistics:
        found = Statistics.of(rows)
        return found if self._merged is None else self._merged.merge(found)
