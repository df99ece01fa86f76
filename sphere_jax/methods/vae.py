"""Training a VAE."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sphere_jax.common.shapes import Keys, OneKey
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, StageOptions
from sphere_jax.data.moments import drawn
from sphere_jax.data.source import Split
from sphere_jax.evaluation.page import Block, Picture
from sphere_jax.evaluation.reconstruction import mean_psnr
from sphere_jax.losses.pixel import pixel_loss
from sphere_jax.methods.base import Arrays, Batch, Loss, Method, Outcome, Params, Pictures, Tools
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.sampling import noise_of
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.tokenizers.conv_vae import ConvVAE


@dataclasses.dataclass(frozen=True)
class VAEOptions(StageOptions):
    method: str = "vae"
    kl_weight: float = option(1e-4, 0.0, help="of the KL term")
    l1_weight: float = option(1.0, 0.0, help="of the absolute error of pixels")
    l2_weight: float = option(1.0, 0.0, help="of the squared error of pixels")


@dataclasses.dataclass(frozen=True)
class VAETraining(Method):
    """Pixel reconstruction plus a light KL term, from scratch."""

    tokenizer: ConvVAE
    options: VAEOptions

    Options = VAEOptions
    trains_tokenizer = ConvVAE.Options.name
    trains = ("encoder", "decoder")

    @classmethod
    def title(cls, config: Config) -> str:
        return "VAE"

    @classmethod
    def build(cls, config: Config, name: str, tokenizer: Tokenizer) -> "VAETraining":
        return cls(tokenizer, config.stage(name))

    def init(self, key: OneKey, frozen: Params) -> Params:
        encoder, decoder = jax.random.split(key)
        return {
            "encoder": self.tokenizer.encoder.init(encoder),
            "decoder": self.tokenizer.decoder.init(decoder),
        }

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: Keys) -> Loss:
        images = to_float(batch["images"])
        mean, log_variance = self.tokenizer.posterior(params["encoder"], images)
        noise = noise_of(keys, mean.shape[1:])
        latents = mean + jnp.exp(0.5 * log_variance) * noise
        decoded = self.tokenizer.decoder.apply(params["decoder"], latents)
        pixels = pixel_loss(decoded, images, self.options.l1_weight, self.options.l2_weight)
        kl = 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)
        return pixels + self.options.kl_weight * kl, {"pixel": pixels, "kl": kl}

    def preview(self, params: Params, frozen: Params, batch: Batch, key: OneKey) -> Pictures | None:
        """Originals above their reconstructions."""
        decoded = self._reconstruct(params, batch["images"])
        return jnp.concatenate([batch["images"], decoded])

    def _reconstruct(self, params, images):
        mean, _ = self.tokenizer.posterior(params["encoder"], to_float(images))
        return to_uint8(self.tokenizer.decoder.apply(params["decoder"], mean))

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Channel statistics of the training latents, and how thin their shell is."""

        samples = self.tokenizer.samples

        def encode(p, x):
            mean, log_variance = self.tokenizer.posterior(p["encoder"], to_float(x))
            return jnp.stack([mean, jnp.exp(0.5 * log_variance)], 1) if samples else mean

        latents = tools.map_over(encode, params, split.train.arrays["images"])
        if samples:  # generators train on samples: the statistics are those of one of each image
            latents = drawn(latents, np.random.default_rng(0))
        latents = latents.astype(np.float64)
        mean, std = latents.mean(axis=(0, 1, 2)), latents.std(axis=(0, 1, 2))
        std = np.maximum(std, 1e-6)  # a dead channel stays near zero and is not blown up
        radii = np.linalg.norm((latents - mean) / std, axis=-1).ravel()
        heldout = split.heldout.arrays["images"]
        decoded = tools.map_over(self._reconstruct, params, heldout)
        metrics = shell_metrics(radii, latents.shape[-1])
        return Outcome(
            artifacts={
                "statistics": {"mean": mean.astype(np.float32), "std": std.astype(np.float32)}
            },
            metrics=metrics | {"reconstruction_psnr": mean_psnr(decoded, heldout)},
            arrays={"radii": radii[:: max(len(radii) // 20000, 1)].astype(np.float32)},
        )

    def artifact_shapes(self) -> dict[str, Any]:
        channels = jax.ShapeDtypeStruct(self.tokenizer.latent_shape[-1:], np.float32)
        return {"statistics": {"mean": channels, "std": channels}}

    def report(self, metrics: dict[str, float], arrays: Arrays) -> list[Block]:
        """Its metrics, and a histogram of its token norms."""
        from sphere_jax.evaluation import figures

        radii = arrays["radii"] / np.sqrt(self.tokenizer.latent_shape[-1])
        histogram = figures.norm_histogram({"training latents": radii})
        caption = "Norms of the normalised tokens over sqrt(d), before projection."
        return [*super().report(metrics, arrays), Picture(histogram, caption)]


def shell_metrics(radii: Float[np.ndarray, " tokens"], d: int) -> dict[str, float]:
    """Mean token radius over sqrt(d) and its coefficient of variation (arXiv 2605.15193;
    docs/systems/spherical_flow.md#tensors)."""
    return {
        "shell_radius": float(radii.mean() / np.sqrt(d)),
        "shell_cv": float(radii.std() / radii.mean()),
    }


METHOD = VAETraining
