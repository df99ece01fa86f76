"""Mean and covariance of features, one batch at a time, in float64.

Each batch is centred on its own mean before it is squared and batches are merged by the pairwise
update of Chan, Golub and LeVeque (1979), so the result neither depends on the batch size nor loses
digits to a large mean.
"""

import dataclasses
import json
import os
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from sphere_jax.common.files import write_npz
from sphere_jax.data.npz_files import read_npz
from sphere_jax.evaluation.preconditions import require_features


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """First two moments of `n` feature vectors of length F.

    `mu` is the mean, `scatter` the sum of outer products about it.
    """

    n: int
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
          ValueError: the vectors have different lengths.
        """
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
        if self.n < 2:
            raise ValueError(f"A covariance needs at least 2 feature vectors, not {self.n}.")
        return self.scatter / (self.n - 1)

    def save(self, path: str | os.PathLike, protocol: dict[str, Any]) -> None:
        """An `.npz` with the field's usual `mu` and `sigma`, and `n` and `protocol` (JSON)."""
        about = {"n": np.asarray(self.n), "protocol": np.asarray(json.dumps(protocol))}
        write_npz(path, {"mu": self.mu, "sigma": self.sigma, **about})

    @classmethod
    def load(cls, path: str | os.PathLike) -> tuple["Statistics", dict[str, Any]]:
        """The statistics and the protocol that `save` wrote.

        Raises:
          UserError: the file is not there, is damaged, or lacks one of the four fields.
        """
        file = read_npz(os.fspath(path), ("mu", "sigma", "n", "protocol"))
        n, protocol = int(file["n"]), json.loads(str(file["protocol"]))
        return cls(n, file["mu"], file["sigma"] * (n - 1)), protocol
