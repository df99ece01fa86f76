"""Few-step generation on the global sphere: decode, encode, re-noise (E) or denoise, re-noise (B).

methods.md E.7 and B.6. Networks come as functions `(x, labels) -> y`; `project` puts a latent on
the sphere. Everything a sample draws is a function of its own key.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.sampling.guidance import guided
from sphere_jax.sampling.noise import noise_of

PLACES = ("encoder", "decoder", "combo")


@dataclass(frozen=True)
class FewSteps:
    """Settings of both samplers.

    steps: T decodes of E, or T denoisings of B. scale: guidance, 1 is off. schedule: the strength
    of the re-noising before step t + 1 is `strength` ("fixed") or `strength (1 - t / T)`
    ("decreasing"). share_noise: one noise for all of it, or a fresh one each time. guidance_at:
    "encoder", "decoder" or "combo", which guides both with the root of the scale; "" for B.

    Raises ValueError for values out of range.
    """

    steps: int
    scale: float = 1.0
    schedule: str = "fixed"
    strength: float = 1.0
    share_noise: bool = True
    guidance_at: str = ""

    decode_radius = 0.0  # what is drawn is decoded as it is

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps is 1 or more, not {self.steps}")
        if self.schedule not in ("fixed", "decreasing"):
            raise ValueError(f'schedule is "fixed" or "decreasing", not {self.schedule!r}')
        if self.guidance_at and self.guidance_at not in PLACES:
            raise ValueError(f"guidance_at is one of {', '.join(PLACES)}, not {self.guidance_at!r}")

    def __str__(self):
        at = f" at {self.guidance_at}" if self.guidance_at and self.scale != 1.0 else ""
        return f"{self.steps} steps, guidance {self.scale:g}{at}"

    def with_scale(self, scale: float) -> "FewSteps":
        """The same with another guidance scale."""
        return replace(self, scale=scale)

    def strengths(self, rounds: int) -> np.ndarray:
        """Of the `rounds` re-noisings, (rounds,) float32: t = 1 .. rounds, of T = rounds + 1."""
        t = np.arange(1, rounds + 1)
        fall = 1.0 - t / (rounds + 1) if self.schedule == "decreasing" else np.ones(rounds)
        return (self.strength * fall).astype(np.float32)

    @property
    def evaluations(self) -> int:
        """NFE: network evaluations per image, encoder and decoder alike; guided ones count 2."""
        if not self.guidance_at:
            return self.steps * (1 + (self.scale != 1.0))
        return self._rounds_cost(self.steps - 1) + self._cost("decoder")

    def evaluations_from_image(self) -> int:
        """NFE where an image takes the place of the first decode: T rounds."""
        return self._rounds_cost(self.steps)

    def _rounds_cost(self, rounds: int) -> int:
        return rounds * (self._cost("encoder") + self._cost("decoder"))

    def _cost(self, place: str) -> int:
        return 2 if self.guides(place) else 1

    def guides(self, place: str) -> bool:
        return self.scale != 1.0 and self.guidance_at in (place, "combo")

    def scale_at(self, scale):
        """What each guided place is given of the whole scale, which may be traced."""
        return jnp.sqrt(scale) if self.guidance_at == "combo" else scale


def first_noise(keys, shape):
    """The noise from which samples start."""
    return noise_of(_fold(keys, 0), shape)


def _fold(keys, t):
    return jax.vmap(jax.random.fold_in, (0, None))(keys, t)


def _noise(settings: FewSteps, keys, shape, t):
    """Of the t-th re-noising, t = 1, 2, ...: not the noise that samples start from."""
    return noise_of(_fold(keys, 1 if settings.share_noise else t), shape)


def _repeat(one_round, start, settings: FewSteps, rounds: int):
    """`one_round(x, (t, r)) -> x, None` for t = 1 .. rounds, r the strength of the t-th."""
    if rounds == 0:
        return start
    times = np.arange(1, rounds + 1, dtype=np.uint32)
    return jax.lax.scan(one_round, start, (times, settings.strengths(rounds)))[0]


def decode_rounds(
    settings, encode, decode, project, renoise, keys, latent_shape, labels, null_label, scale,
    images=None, latents=None, noise=None,
):  # fmt: skip
    """Images (B, H, W, C) in [-1, 1] by Sphere Encoder's loop (methods.md E.7).

    The first are decoded from `latents`, points of the sphere, or by default from noise, and T - 1
    rounds follow; or they are `images`, and T rounds follow. A round is `z = encode(x)`,
    `v = renoise(project(z), e, r)`, `x = decode(v)`.

    renoise: `(v, e, r) -> v`, r the strength. scale: of the guidance where settings say it is on.
    noise: the direction of all re-noisings (B, h, w, d) instead of the keys' own.
    """

    def network(function, place, x):
        if not settings.guides(place):
            return function(x, labels)
        return guided(function, (x,), labels, null_label, settings.scale_at(scale))

    def to_images(v):
        x = network(decode, "decoder", v)
        return jnp.clip(x, -1.0, 1.0) if settings.guides("decoder") else x

    def one_round(x, now):
        t, r = now
        e = _noise(settings, keys, latent_shape, t) if noise is None else noise
        v = renoise(project(network(encode, "encoder", x)), e, r)
        return to_images(v), None

    rounds = settings.steps
    if images is None:
        rounds -= 1
        start = project(first_noise(keys, latent_shape)) if latents is None else latents
        images = to_images(start)
    return _repeat(one_round, images, settings, rounds)


def denoise_rounds(
    settings, denoise, project, renoise, keys, latent_shape, labels, null_label, scale
):
    """Latents (B, h, w, d) by Sphere Latent Encoder's Algorithm 1 (methods.md B.6).

    `z_hat = denoise(v)`, `v = renoise(project(z_hat), e, r)`, T denoisings; the last prediction is
    returned as it is, off the sphere.
    """

    def predict(v):
        if settings.scale == 1.0:
            return denoise(v, labels)
        return guided(denoise, (v,), labels, null_label, scale)

    def one_round(v, now):
        t, r = now
        e = _noise(settings, keys, latent_shape, t)
        return renoise(project(predict(v)), e, r), None

    start = project(first_noise(keys, latent_shape))
    return predict(_repeat(one_round, start, settings, settings.steps - 1))
