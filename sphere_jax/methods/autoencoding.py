"""Shared by methods that train the decoder of features to give images back: L1, LPIPS, noise on
latents, and a discriminator that learns with it (docs/systems/hae.md#autoencoder-training)."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sphere_jax.common.shapes import AnyArray, Images, Keys, Latents, OneKey, Scalar
from sphere_jax.config.options import Config, EvaluationOptions
from sphere_jax.data.source import Source, Split
from sphere_jax.evaluation.page import Block, Picture, Table
from sphere_jax.losses.augmentation import augment
from sphere_jax.losses.perceptual import Perceptual
from sphere_jax.methods.autoencoding_options import AutoencodingOptions, check_options
from sphere_jax.methods.base import Arrays, Batch, Loss, Outcome, Params, Pictures, Tools
from sphere_jax.methods.decoder_training import (
    SHOWN,
    DecoderTraining,
    Logits,
    make_discriminator,
)
from sphere_jax.methods.on_latents import spaced_subset
from sphere_jax.models.discriminator import Discriminator
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.sampling import noise_of
from sphere_jax.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class Autoencoding(DecoderTraining):
    """A subclass is a frozen dataclass with these fields; it says what `learns` and may add to
    `reconstruction`. The adversarial term is in the loss from step `adversarial_from`."""

    name: str
    tokenizer: Tokenizer
    options: AutoencodingOptions
    perceptual: Perceptual
    discriminator: Discriminator | None
    evaluation: EvaluationOptions

    adaptive_eps = 1e-6
    noise_options = ("batch_size", "noise_per")

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        check_options(config, name)

    @classmethod
    def opponent(cls, options: AutoencodingOptions, channels: int) -> Discriminator:
        kind, width, group = options.discriminator, options.discriminator_width, options.norm_group
        return make_discriminator(kind, channels, width, group)

    @property
    def adaptive(self) -> bool:
        return self.options.adaptive

    @property
    def starts(self) -> dict[str, int]:
        start = self.options.discriminator_from
        return {} if self.discriminator is None else {"discriminator": start}

    def notes(self) -> list[str]:
        s = self.options
        terms = [f"L1 {s.l1_weight:g}"] if s.l1_weight else []
        if self.perceptual.active:
            terms.append(f"LPIPS-VGG {s.lpips_weight:g}")
        if self.discriminator is not None:
            weight = f"{s.adversarial_weight:g}{' x adaptive' if s.adaptive else ''}"
            terms.append(
                f"'{s.discriminator}' discriminator {weight} from step {s.adversarial_from:,}"
            )
        loss = ", ".join(terms + self.terms())
        return [f"Trains {', '.join(self.trains)}. Loss: {loss}.", *self.left_out()]

    def terms(self) -> list[str]:
        """What a subclass adds to the loss, in words."""
        return []

    def frozen(self, artifacts: Params) -> Params:
        """With the discriminator of an earlier stage, which it goes on with."""
        earlier = {name: artifacts[name] for name in ("discriminator",) if name in artifacts}
        return super().frozen(artifacts) | earlier

    def init(self, key: OneKey, frozen: Params) -> Params:
        """What earlier stages trained, and fresh parameters of the rest."""
        params = {}
        for name in self.trains:
            key, own = jax.random.split(key)
            params[name] = (
                jax.tree.map(jnp.copy, frozen[name])
                if name in frozen and self._fits(name, frozen[name])
                else self.fresh(name, own, frozen)
            )
        return params

    def _fits(self, name, tree) -> bool:
        """Another stage may have had another discriminator."""
        if name != "discriminator":
            return True
        shapes = self.discriminator.network.shapes
        same = jax.tree.structure(shapes) == jax.tree.structure(tree)
        return same and jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, shapes, tree))

    def fresh(self, name: str, key: OneKey, frozen: Params) -> Params:
        """New parameters of one part."""
        if name == "discriminator":
            return self.discriminator.network.init(key)
        return self.tokenizer.decoder.init(key)

    def keys(self, key: OneKey, size: int) -> dict[str, Any]:
        """A key a sample, and what sigma of its noise is over tau, uniform in [0, 1]."""
        rest, strength = jax.random.split(key)
        if self.options.noise_per == "batch":
            drawn = jnp.broadcast_to(jax.random.uniform(strength), (size,))
        else:
            drawn = jax.vmap(jax.random.uniform)(super().keys(strength, size))
        return {"key": super().keys(rest, size), "strength": drawn}

    def schedule(self, step: Int[AnyArray, ""]) -> dict[str, Scalar]:
        """tau of the noise; whether the discriminator learns and whether it is in the loss."""
        s, found = self.options, super().schedule(step)
        if s.latent_noise:
            done = jnp.clip(step / max(s.latent_noise_ramp, 1), 0.0, 1.0)
            end = s.latent_noise_end or s.latent_noise
            found["tau"] = (s.latent_noise + (end - s.latent_noise) * done).astype(jnp.float32)
        if self.discriminator is not None:
            found["discriminator"] = (step >= s.discriminator_from).astype(jnp.float32)
        return found

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: dict[str, Any]) -> Loss:
        """With a schedule among the frozen, in training; without (held-out images), of the
        reconstruction of latents without noise.
        """
        images, schedule = to_float(batch["images"]), frozen.get("schedule", {})
        noise_keys, *views = jax.vmap(lambda k: jax.random.split(k, 4))(keys["key"]).T
        reconstruction = partial(self.reconstruction, frozen, images)

        def network(learned):
            known = frozen | learned
            latents = self.tokenizer.encode(known, images)
            noised = latents
            if "tau" in schedule:
                sigma = (schedule["tau"] * keys["strength"]).reshape(-1, 1, 1, 1)
                noised = latents + sigma * noise_of(noise_keys, latents.shape[1:])
            return self.tokenizer.decode(known, noised), latents

        if "adversarial" not in schedule:
            return reconstruction(network({name: params[name] for name in self.learns}))
        return self.adversarial_loss(params, frozen, network, reconstruction, images, views)

    def reconstruction(
        self, frozen: Params, images: Images, output: tuple[Images, Latents]
    ) -> Loss:
        """Of what the decoder made and the latents without noise, against the images."""
        return self.image_loss(frozen, output[0], images)

    def logits(
        self, params: Params, frozen: Params, images: Images, keys: Keys | None = None
    ) -> Logits:
        """Of images after DiffAug, where it is on."""
        images = augment(images, keys) if self.options.augment else images
        return super().logits(params, frozen, images)

    def preview(self, params: Params, frozen: Params, batch: Batch, key: OneKey) -> Pictures | None:
        """Originals above their reconstructions."""
        decoded = self._reconstruct(frozen | params, batch["images"])
        return jnp.concatenate([batch["images"], decoded])

    def _reconstruct(self, params, images):
        latents = self.tokenizer.encode(params, to_float(images))
        return to_uint8(self.tokenizer.decode(params, latents))

    def heldout(self, split: Split) -> Source:
        """What it is measured on."""
        count = self.options.measured or len(split.heldout)
        return spaced_subset(split.heldout, count)

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Reconstruction of held-out images."""
        images = self.heldout(split).arrays["images"]
        known = {name: (frozen | params)[name] for name in self.tokenizer.parts}

        def reconstruct(p, x):
            return self._reconstruct(p, x)

        decoded = tools.map_over(reconstruct, known, images)
        scores = tools.fidelity.scores(images, decoded, tools.fidelity.moments(images))
        some = np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int)
        shown = {"original": images[some], "reconstruction": decoded[some]}
        return Outcome(
            metrics={f"reconstruction_{name}": value for name, value in scores.items()},
            arrays={f"strip_{name}": pictures for name, pictures in shown.items()},
        )

    def report(self, metrics: dict[str, float], arrays: Arrays) -> list[Block]:
        """Its metrics and held-out reconstructions."""
        from sphere_jax.evaluation import figures

        rows = [[name.replace("_", " "), value] for name, value in metrics.items()]
        strips = {
            name.removeprefix("strip_").replace("_", " "): pictures
            for name, pictures in arrays.items()
            if name.startswith("strip_")
        }
        return [
            Table(["held-out images", ""], rows),
            Picture(figures.labelled_rows(strips), "Held-out images and what is decoded."),
        ]
