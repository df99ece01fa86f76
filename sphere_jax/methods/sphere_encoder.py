"""Sphere Encoder: an autoencoder that covers the global sphere, and generates from any point of it.

methods.md E. Symbols as there: `f` is `spherify`, E and D the encoder and the decoder.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import SphereEncoderStage
from sphere_jax.evaluation.coverage import ANGLES, coverage
from sphere_jax.evaluation.reconstruction import mean_psnr
from sphere_jax.geometry import sphere
from sphere_jax.losses.cosine import cosine_distance
from sphere_jax.losses.perceptual import Perceptual, describe, load_perceptual
from sphere_jax.losses.pixel import smooth_l1
from sphere_jax.methods.base import Generator, Outcome
from sphere_jax.methods.latents import evenly
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.sampling import FewSteps, decode_rounds, noise_of, stratified
from sphere_jax.tokenizers.sphere_encoder import SphereEncoder

HARDEST = 89.0  # degrees, the end of the boosted range


@dataclasses.dataclass(frozen=True)
class SphereEncoderTraining(Generator):
    """Encoder and decoder from scratch, with reconstruction-type losses only."""

    tokenizer: SphereEncoder
    num_classes: int
    settings: SphereEncoderStage
    sampler: FewSteps
    perceptual: Perceptual
    trains = ("encoder", "decoder")

    @property
    def conditional(self):
        return self.tokenizer.num_classes > 0

    @property
    def rates(self):
        return {"encoder": self.settings.encoder_rate}

    def load(self):
        s = self.settings
        return {"perceptual": load_perceptual(self.perceptual, s.lpips, s.convnext)}

    def notes(self):
        return [describe(self.perceptual)]

    def source(self, split, frozen, map_over):
        if len(split.heldout) < 3:  # radii are stratified over as many
            raise UserError(
                f"{len(split.heldout)} held-out images are too few to measure Sphere Encoder on; "
                "hold out 3 or more."
            )
        return split

    def frozen(self, artifacts):
        return {"perceptual": artifacts.get("perceptual", {})}

    def init(self, key, frozen):
        encoder, decoder = jax.random.split(key)
        return {
            "encoder": self.tokenizer.encoder.init(encoder),
            "decoder": self.tokenizer.decoder.init(decoder),
        }

    def draws(self, key, size):
        """Besides a key a sample, the two stratified noise radii r and r' (methods.md E.4)."""
        high, low, rest = jax.random.split(key, 3)
        strata = self.settings.strata if size % self.settings.strata == 0 else size
        return {
            "key": super().draws(rest, size),
            "r": stratified(high, size, strata),
            "r_low": stratified(low, size, strata),
        }

    def fixed_tables(self):
        networks = {"encoder": self.tokenizer.encoder, "decoder": self.tokenizer.decoder}
        return {name: network.module.fixed_table_size for name, network in networks.items()}

    def loss(self, params, frozen, batch, draws):
        """`L_pix-recon + L_pix-con + L_lat-con` (methods.md E.5)."""
        s, x = self.settings, to_float(batch["images"])
        noise, mix, drop_encoder, drop_decoder = jax.vmap(lambda k: jax.random.split(k, 4))(
            draws["key"]
        ).T
        y_encoder = self.drop_labels(drop_encoder, batch["labels"])
        y_decoder = self.drop_labels(drop_decoder, batch["labels"])

        z = self.tokenizer.raw(params, x, y_encoder)
        v = sphere.spherify(z)
        e = noise_of(noise, v.shape[1:])
        r, r_low = draws["r"], draws["r_low"]
        v_low = self.renoise(v, e, 0.5 * r * r_low)
        v_high = self.renoise(v, e, self._hard(mix, r))  # the same e

        x_low = self.tokenizer.decode(params, v_low, y_decoder)
        x_high = self.tokenizer.decode(params, v_high, y_decoder)
        target = jax.lax.stop_gradient(x_low)
        z_high = self.tokenizer.raw(params, x_high, y_encoder)

        parts = {
            "reconstruction": s.reconstruction_weight * _pixels(x_low, x),
            "consistency": s.consistency_weight * _pixels(x_high, target),
            "latent": s.latent_weight * cosine_distance(z_high, jax.lax.stop_gradient(z)),
        }
        if self.perceptual.active:
            weights = frozen["perceptual"]
            parts["reconstruction_perceptual"] = s.reconstruction_perceptual * self.perceptual(
                weights, x_low, x
            )
            parts["consistency_perceptual"] = s.consistency_perceptual * self.perceptual(
                weights, x_high, target
            )
        return sum(parts.values()), parts

    def _hard(self, keys, r):
        """`r_high`: for a tenth of the samples, noise beyond sigma_max (methods.md E.4)."""
        s = self.settings
        share, other = jax.vmap(lambda k: jax.random.uniform(k, (2,)))(keys).T
        beyond = math.tan(math.radians(min(s.max_angle + 5.0, HARDEST))) / self.sigma_max - 1.0
        boost = share if s.hard_mix == "released" else other
        return jnp.where(share < s.hard_fraction, 1.0 + boost * beyond, r)

    @property
    def sigma_max(self) -> float:
        return math.tan(math.radians(self.settings.max_angle))

    def renoise(self, v, e, r):
        """`f(v + r sigma_max e)` for strengths r, () or (B,)."""
        return self.noised(v, e, r * self.sigma_max)

    def noised(self, v, e, sigma):
        """`f(v + sigma e)`: at the angle `atan sigma` from v, to within about 1 / sqrt(L)."""
        sigma = jnp.asarray(sigma, jnp.float32)
        sigma = sigma.reshape(sigma.shape + (1,) * (v.ndim - sigma.ndim))
        return sphere.spherify(v + sigma * e)

    def generate(self, params, keys, labels, scale, sampler):
        return self.refine(params, keys, labels, scale, sampler), {}

    def refine(
        self, params, keys, labels, scale, sampler, images=None, latents=None, noise=None
    ):  # fmt: skip
        """Float images (B, H, W, C) by the rounds of E.7: from noise, `latents` or `images`."""
        return decode_rounds(
            sampler,
            lambda x, y: self.tokenizer.raw(params, x, y),
            lambda v, y: self.tokenizer.decode(params, v, y),
            sphere.spherify,
            self.renoise,
            keys,
            self.tokenizer.latent_shape,
            labels,
            self.num_classes,
            scale,
            images,
            latents,
            noise,
        )

    def images(self, params, samples, radius=0.0):
        return to_uint8(samples)

    def finish(self, params, frozen, split, map_over):
        """Held-out reconstruction, coverage of the sphere, and what noise leaves of images."""
        heldout = evenly(split.heldout).arrays
        images, labels = heldout["images"], heldout["labels"]

        def reconstruct(p, x):  # null label, no noise: as published
            return to_uint8(self.tokenizer.decode(p, self.tokenizer.encode(p, to_float(x))))

        def encode(p, x, y):
            return self.tokenizer.encode(p, to_float(x), y)

        decoded = map_over(reconstruct, params, images)
        latents = map_over(encode, params, images, labels)
        some = np.linspace(0, len(images) - 1, 10).astype(int)

        def decode_noised(p, v, e, sigma, y):
            return to_uint8(self.tokenizer.decode(p, self.noised(v, e, sigma), y))

        curve = robustness(decode_noised, params, latents, labels, images, map_over)
        return Outcome(
            metrics={"reconstruction_psnr": mean_psnr(decoded, images)} | coverage(latents, labels),
            arrays={"original": images[some], "reconstruction": decoded[some], **curve},
        )


def _pixels(images, target):
    """Smooth L1 on images mapped to [0, 1]."""
    return smooth_l1(0.5 * images, 0.5 * target)


def robustness(decode, params, latents, labels, images, map_over, count=256):
    """PSNR of `decode(params, v, e, sigma, labels)` against the angle of the noise, in degrees."""
    rows = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    v, y, x = latents[rows], labels[rows], images[rows]
    e = np.random.default_rng(0).standard_normal(v.shape, dtype=np.float32)

    def at(angle):
        sigma = np.full(len(v), math.tan(math.radians(angle)), np.float32)
        return mean_psnr(map_over(decode, params, v, e, sigma, y), x)

    found = [at(angle) for angle in ANGLES]
    return {"noise_angle": np.array(ANGLES, np.float32), "noise_psnr": np.array(found, np.float32)}
