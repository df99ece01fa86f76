"""Few-step generation on the global sphere: decode, encode, re-noise (E) or denoise, re-noise (B).

arXiv 2602.15030; arXiv 2605.15592, Algorithm 1; docs/systems/sphere_encoder.md#sampling and
docs/systems/sphere_latent.md#sampling. The noise of a sample is a function of its key alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from sphere_jax.common.shapes import Images, Keys, Labels, Latents, Scalar
from sphere_jax.sampling.guidance import guided
from sphere_jax.sampling.noise import folded, noise_of

PLACES = ("encoder", "decoder", "combo")

Encode = Callable[[Images, Labels], Latents]
Decode = Callable[[Latents, Labels], Images]
Denoise = Callable[[Latents, Labels], Latents]
Project = Callable[[Latents], Latents]  # onto the sphere
Renoise = Callable[[Latents, Latents, Scalar], Latents]  # of (v, noise, strength)


@dataclass(frozen=True)
class FewSteps:
    """Settings of both samplers.

    steps: T decodes of E, or T denoising steps of B. scale: guidance, 1 is off. schedule: the
    strength of the re-noising before step t + 1 is `strength` ("fixed") or `strength (1 - t / T)`
    ("decreasing"). share_noise: one noise for all steps, or a fresh one for each. guidance_at:
    "encoder", "decoder" or "combo", which guides both with the square root of the scale; "" for B.

    Raises:
        ValueError: for values out of range.
    """

    steps: int
    scale: float = 1.0
    schedule: str = "fixed"
    strength: float = 1.0
    share_noise: bool = True
    guidance_at: str = ""

    decode_radius = 0.0  # latents are decoded as they are

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
        """A copy with another guidance scale."""
        return replace(self, scale=scale)

    def strengths(self, rounds: int) -> Float32[np.ndarray, " {rounds}"]:
        """Strengths `(rounds,)` of the re-noisings t = 1 .. rounds, with T = rounds + 1."""
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
        """NFE from an image instead of a first decode: T rounds."""
        return self._rounds_cost(self.steps)

    def _rounds_cost(self, rounds: int) -> int:
        return rounds * (self._cost("encoder") + self._cost("decoder"))

    def _cost(self, place: str) -> int:
        return 2 if self.guides(place) else 1

    def guides(self, place: str) -> bool:
        """Whether the network at `place`, "encoder" or "decoder", is guided."""
        return self.scale != 1.0 and self.guidance_at in (place, "combo")

    def scale_at(self, scale: Scalar) -> Scalar:
        """Scale of each guided network, from the whole scale, which may be traced."""
        return jnp.sqrt(scale) if self.guidance_at == "combo" else scale


def first_noise(keys: Keys, shape: tuple[int, ...]) -> Float32[Array, " batch *shape"]:
    """The noise `(B, *shape)` from which samples with these keys start."""
    return noise_of(folded(keys, 0), shape)


def _noise(settings: FewSteps, keys: Keys, shape: tuple[int, ...], t: Array) -> Latents:
    """The noise of the t-th re-noising, t = 1, 2, ...; it differs from `first_noise`."""
    return noise_of(folded(keys, 1 if settings.share_noise else t), shape)


def _repeat(
    one_round: Callable, start: Array, settings: FewSteps, rounds: int
) -> tuple[Array, Array | None]:
    """`one_round(x, (t, r)) -> x, seen` for t = 1 .. rounds, with r the strength of round t: the
    last x, and what was seen, on a new first axis."""
    if rounds == 0:
        return start, None
    times = np.arange(1, rounds + 1, dtype=np.uint32)
    return jax.lax.scan(one_round, start, (times, settings.strengths(rounds)))


def decode_rounds(
    settings: FewSteps,
    encode: Encode,
    decode: Decode,
    project: Project,
    renoise: Renoise,
    keys: Keys,
    latent_shape: tuple[int, ...],
    labels: Labels,
    null_label: int,
    scale: Scalar,
    images: Images | None = None,
    latents: Latents | None = None,
    noise: Latents | None = None,
    states: bool = False,
) -> Images | tuple[Images, Float32[Array, "steps batch h w c"]]:
    """Images (B, H, W, C) in [-1, 1] by the loop of Sphere Encoder (arXiv 2602.15030;
    docs/systems/sphere_encoder.md#sampling).

    The first images are decoded from `latents` on the sphere, by default from noise, and T - 1
    rounds follow. Or they are `images`, and T rounds follow. A round is `z = encode(x)`,
    `v = renoise(project(z), e, r)`, `x = decode(v)`.

    Args:
        renoise: `(v, e, r) -> v` with noise e and strength r.
        scale: of guidance, where `settings` turn it on.
        noise: `(B, h, w, d)`, the noise of every re-noising in place of that of the keys.
        states: also return the images after every decode.
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
        x = to_images(v)
        return x, x if states else None

    rounds = settings.steps
    if images is None:
        rounds -= 1
        start = project(first_noise(keys, latent_shape)) if latents is None else latents
        images = to_images(start)
    last, seen = _repeat(one_round, images, settings, rounds)
    if not states:
        return last
    return last, images[None] if seen is None else jnp.concatenate([images[None], seen])


def denoise_rounds(
    settings: FewSteps,
    denoise: Denoise,
    project: Project,
    renoise: Renoise,
    keys: Keys,
    latent_shape: tuple[int, ...],
    labels: Labels,
    null_label: int,
    scale: Scalar,
    states: bool = False,
) -> Latents | tuple[Latents, Float32[Array, "steps batch h w d"]]:
    """Latents (B, h, w, d) by Algorithm 1 of Sphere Latent Encoder (arXiv 2605.15592, Algorithm 1;
    docs/systems/sphere_latent.md#sampling).

    T steps of `z_hat = denoise(v)`, `v = renoise(project(z_hat), e, r)`. The last prediction is
    returned unprojected, off the sphere. `states` also returns every prediction.
    """

    def predict(v):
        if settings.scale == 1.0:
            return denoise(v, labels)
        return guided(denoise, (v,), labels, null_label, scale)

    def one_round(v, now):
        t, r = now
        e = _noise(settings, keys, latent_shape, t)
        z = predict(v)
        return renoise(project(z), e, r), z if states else None

    start = project(first_noise(keys, latent_shape))
    v, seen = _repeat(one_round, start, settings, settings.steps - 1)
    last = predict(v)
    if not states:
        return last
    return last, last[None] if seen is None else jnp.concatenate([seen, last[None]])
