"""Claims of the papers about their tokenizers, compared with measurements on this one.

Every threshold is defined here and printed with the verdict.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sphere_jax.studies.probing import paths, swap
from sphere_jax.studies.probing.distances import Scores
from sphere_jax.studies.probing.measure import Probed

THIN = 0.23  # CV of the thickest published shell
OFF = 1.0  # sigma; published straight paths come 1.4 to 2.5 away
LARGE_SHARE = 0.4  # published: about 0.5
NEAR, FAR = 0.5, 0.8  # of the change that the whole latent of b makes
SIGNIFICANT = 2.0  # standard errors
NAMES = {"lpips": "LPIPS", "semantic": "semantic distance", "error": "RMS of pixels"}


class Mean(NamedTuple):
    """A mean over images and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        digits = 2 if abs(self.value) >= 10 else 3 if abs(self.value) >= 0.1 else 4
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


def mean(values: np.ndarray) -> Mean:
    """Of one number an image, (N,); the error of a single one is NaN."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Mean(float(np.mean(values)), float(error))


class Claim(NamedTuple):
    """`shown` is "yes", "no", or "in part" where measures, ends or strengths disagree."""

    statement: str
    source: str
    shown: str
    found: str


def norm_distance(probed: Probed, kind: str) -> np.ndarray:
    """Distance (T,) of the mean norm along a path from the nearest shell of its ends, in sigma."""
    data, noise = probed.shells["data"], probed.shells["noise"]
    at = paths.ends(kind, data, noise, probed.latent_shape[-1])
    return np.asarray(paths.to_nearest(probed.along[kind]["norm"].mean(0), at))


def claims(probed: Probed) -> Iterator[Claim]:
    """One after the other, those of spherical flow matching (A) and of the HAE (D)."""
    yield _shells(probed)
    yield _leaves(probed)
    yield _shares(probed)
    yield from _swaps(probed)
    yield _matched(probed)
    yield from _decoding(probed)


def _shells(probed: Probed) -> Claim:
    both = {name: s.variation for name, s in probed.shells.items()}
    found = "; ".join(
        f"{name}: norm {probed.shells[name].radius:.3f}, CV {cv:.3f}" for name, cv in both.items()
    )
    statement = f"Tokens and noise lie on thin shells (CV at most {THIN})"
    return Claim(statement, "A", _verdict(cv <= THIN for cv in both.values()), found)


def _leaves(probed: Probed) -> Claim:
    most = {kind: float(norm_distance(probed, kind).max()) for kind in probed.along}
    found = "; ".join(f"{kind} {value:.2f}" for kind, value in most.items())
    statement = f"The straight path leaves both shells (more than {OFF:g} sigma), slerp does not"
    stays = most[paths.SLERP] < 0.01
    holds = (most[kind] > OFF and stays for kind in (paths.RAW, paths.SHELL))
    return Claim(statement, "A", _verdict(holds), f"furthest, in sigma: {found}")


def _shares(probed: Probed) -> Claim:
    share = {kind: x["share"].mean(0) for kind, x in probed.along.items()}
    raw, middle = share[paths.RAW], len(paths.TIMES) // 2
    found = "; ".join(
        f"{kind} {x[0]:.2f} at the data, {x[middle]:.2f} midway, {x[-1]:.2f} at the noise"
        for kind, x in share.items()
    )
    statement = (
        f"Of the straight path's velocity at least {LARGE_SHARE} is radial at both ends, of "
        "slerp's nothing"
    )
    tangent = share[paths.SLERP].max() < 1e-3
    holds = (raw[end] >= LARGE_SHARE and tangent for end in (0, -1))
    return Claim(statement, "A", _verdict(holds), found)


def _swaps(probed: Probed) -> Iterator[Claim]:
    whole = probed.swaps[swap.WHOLE]["a"]
    parts = {name: _ratios(probed.swaps[name]["a"], whole) for name in probed.swaps}
    near, far = parts[swap.RADIUS], parts[swap.DIRECTION]
    yield Claim(
        f"With another image's norms it stays the image (at most {NEAR} of a whole swap)",
        "A",
        _verdict(r <= NEAR for r in near.values()),
        _listed(near),
    )
    yield Claim(
        f"Its norms alone do not keep it: almost as far as a whole swap (at least {FAR})",
        "A",
        _verdict(r >= FAR for r in far.values()),
        _listed(far),
    )
    to = probed.swaps[swap.DIRECTION]
    yield Claim(
        "With another image's directions it becomes the other (nearer to b than to a)",
        "A",
        _verdict(_significantly_less(to["b"][m], to["a"][m]) for m in _measures(whole)),
        "; ".join(
            f"{NAMES[m]} to b {mean(to['b'][m])}, to a {mean(to['a'][m])}" for m in _measures(whole)
        ),
    )


def _matched(probed: Probed) -> Claim:
    radial, angular = probed.matched["radial"], probed.matched["angular"]
    (measure, *_) = _measures(next(iter(radial.values())))
    ratios = {
        eta: angular[eta][measure].mean() / max(radial[eta][measure].mean(), 1e-12)
        for eta in radial
    }
    holds = [_significantly_less(radial[eta][measure], angular[eta][measure]) for eta in radial]
    return Claim(
        "Turning a token changes the image more than stretching it equally far",
        "A, inferred",
        _verdict(holds),
        f"{NAMES[measure]}, turned over stretched: "
        + ", ".join(f"{ratio:.2f} (eta {eta:g})" for eta, ratio in ratios.items()),
    )


def _decoding(probed: Probed) -> Iterator[Claim]:
    whole = probed.swaps[swap.WHOLE]["a"]
    fixed = {name: _ratios(scores, whole) for name, (_, scores) in probed.fixed.items()}
    worst = {m: max(fixed, key=lambda name: fixed[name][m]) for m in _measures(whole)}
    yield Claim(
        f"One norm for all tokens is decoded well (at most {NEAR} of a whole swap)",
        "D",
        _verdict(r <= NEAR for ratios in fixed.values() for r in ratios.values()),
        "worst: "
        + "; ".join(f"{NAMES[m]} {fixed[name][m]:.2f} at {name}" for m, name in worst.items()),
    )
    sigma = list(probed.turned)[-1]
    ratios = _ratios(probed.turned[sigma], whole)
    yield Claim(
        f"Noise on the directions breaks the image (at least {FAR} of a whole swap)",
        "D",
        _verdict(r >= FAR for r in ratios.values()),
        f"sigma {sigma:.2g}, {probed.turned[sigma]['angle'].mean():.0f} degrees (as HAE's 0.1): "
        + _listed(ratios),
    )


def _measures(scores: Scores) -> list[str]:
    """The distances there are: pixels only if there is no other."""
    return [m for m in ("lpips", "semantic") if m in scores] or ["error"]


def _ratios(scores: Scores, whole: Scores) -> dict[str, float]:
    """Mean change over the mean change of a whole swap, for each distance."""
    return {m: float(scores[m].mean() / max(whole[m].mean(), 1e-12)) for m in _measures(whole)}


def _listed(ratios: dict[str, float]) -> str:
    return "; ".join(f"{NAMES[m]} {ratio:.2f}" for m, ratio in ratios.items())


def _significantly_less(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the mean of x is below that of y, image by image, by `SIGNIFICANT` errors."""
    difference = mean(y - x)
    return difference.value > SIGNIFICANT * difference.error


def _verdict(holds) -> str:
    holds = list(holds)
    return "yes" if all(holds) else "in part" if any(holds) else "no"
