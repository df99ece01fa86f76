"""Mean and spread of latents, gathered piece by piece in float64."""

from typing import Any

import numpy as np


def moments_of(stored: np.ndarray) -> dict[str, Any]:
    """Of tokens (..., d) in float64: how many, mean and sum of squared deviations of every channel
    and of the norm."""
    tokens = stored.reshape(-1, stored.shape[-1]).astype(np.float64)
    found = {"tokens": len(tokens)}
    for name, values in (("channel", tokens), ("norm", np.linalg.norm(tokens, axis=-1)[:, None])):
        mean = values.mean(0)
        squares = ((values - mean[None]) ** 2).sum(0)
        found |= {f"{name}_mean": mean.tolist(), f"{name}_squares": squares.tolist()}
    return found


def drawn(moments: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sample (..., h, w, d) float32 of each pair of mean and standard deviation (..., 2, h, w,
    d); in parts, one after the other, it is the same."""
    mean, std = np.moveaxis(moments.astype(np.float32), -4, 0)
    return mean + std * rng.standard_normal(mean.shape, np.float32)


def merged(a: dict[str, Any] | None, b: dict[str, Any]) -> dict[str, Any]:
    """The moments of two sets of tokens together (the parallel form of Welford's recursion)."""
    if a is None:
        return b
    count = a["tokens"] + b["tokens"]
    found = {"tokens": count}
    for name in ("channel", "norm"):
        mean, other = np.array(a[f"{name}_mean"]), np.array(b[f"{name}_mean"])
        apart = other - mean
        squares = np.array(a[f"{name}_squares"]) + np.array(b[f"{name}_squares"])
        squares = squares + apart**2 * (a["tokens"] * b["tokens"] / count)
        mean = mean + apart * (b["tokens"] / count)
        found |= {f"{name}_mean": mean.tolist(), f"{name}_squares": squares.tolist()}
    return found


def statistics_of(moments: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of every channel and of the norm of tokens, and their number."""

    def std(name):
        return np.sqrt(np.array(moments[f"{name}_squares"]) / moments["tokens"]).tolist()

    return {
        "tokens": moments["tokens"],
        "channel_mean": moments["channel_mean"],
        "channel_std": std("channel"),
        "token_norm_mean": moments["norm_mean"][0],
        "token_norm_std": std("norm")[0],
    }
