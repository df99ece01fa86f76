"""What generators on a tokenizer's latents share: a data set of images as one of latents.

Images are encoded before training, into memory, or in every step; `sphere_jax.prepare latents`
encodes those of a large set into files.
"""

import math

import jax.numpy as jnp
import numpy as np

from sphere_jax.data.memory import check_fits
from sphere_jax.data.sources import Source, Split
from sphere_jax.geometry import sphere
from sphere_jax.methods.base import Generator
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.tokenizers import Precomputed, Tokenizer
from sphere_jax.weights.layouts import generators
from sphere_jax.weights.stored import load_weights

MEASURED = 2000  # held-out examples that a finished stage is measured on


def has_images(tokenizer: Tokenizer) -> bool:
    """Whether latents can be decoded here."""
    return not isinstance(tokenizer, Precomputed)


def encoded(tokenizer: Tokenizer, source: Source, params, map_over) -> Source:
    """Every image encoded once; latents that are there already pass through."""
    if "images" not in source.arrays:
        return source

    def encode(p, images):
        return tokenizer.encode(p, to_float(images))

    found = map_over(encode, params, source.arrays["images"])
    return Source({"latents": found, "labels": source.arrays["labels"]})


def latent_bytes(tokenizer: Tokenizer) -> int:
    """What one encoded image takes in memory, as float32."""
    return 4 * math.prod(tokenizer.latent_shape)


def encoded_split(tokenizer: Tokenizer, split: Split, params, map_over) -> Split:
    """Both parts of a data set, encoded. Raises UserError if they would not fit into memory."""
    if "images" in split.train.arrays:
        count = len(split.train) + len(split.heldout)
        check_fits(
            f"The latents of {count:,} images, encoded once,",
            count * latent_bytes(tokenizer),
            "encode them into files with python -m sphere_jax.prepare latents, or in every step "
            "with encode='every_step'",
        )
    parts = (encoded(tokenizer, part, params, map_over) for part in (split.train, split.heldout))
    return Split(*parts)


def evenly(source: Source, count: int = MEASURED) -> Source:
    """At most `count` of its examples, in memory and in order: what a stage measures itself on."""
    rows = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    return Source(source.read(rows))


class OnLatents(Generator):
    """A generator with one network, on the latents of a frozen tokenizer."""

    trains = ("network",)

    @property
    def has_images(self) -> bool:
        return has_images(self.tokenizer)

    def notes(self):
        """What VA-VAE lacks: LightningDiT normalises its channels (methods.md A.2)."""
        if getattr(self.tokenizer, "kind", "") == "vavae" and not self.tokenizer.whiten:
            return [
                "Latents are not normalised by channel, as VA-VAE's are published: "
                "config.tokenizer.pretrained_statistics is empty."
            ]
        return []

    def frozen(self, artifacts):
        # Of a run on cached latents the encoder was not loaded.
        return {name: artifacts[name] for name in self.tokenizer.parts if name in artifacts}

    def init(self, key, frozen):
        return {"network": self.network.init(key)}

    def begin(self):
        """The weights of `settings.pretrained`: converted, averaged by `sphere_jax.ema`, or as
        published."""
        if not self.settings.pretrained:
            return None
        path, layouts = self.settings.pretrained, generators.layouts
        return {"network": load_weights(path, None, self.network, layouts)}

    def source(self, split, frozen, map_over):
        """Every image encoded once, or not yet; the projection happens in the loss."""
        if self.settings.encode == "every_step":
            return split
        return encoded_split(self.tokenizer, split, frozen, map_over)

    def latents_of(self, frozen, batch):
        """Normalised latents (B, h, w, d) of a batch, which holds them or its images."""
        if "latents" in batch:
            return batch["latents"]
        return self.tokenizer.encode(frozen, to_float(batch["images"]))

    def batch_shapes(self):
        if self.settings.encode == "every_step":
            return super().batch_shapes()
        return {"latents": (self.tokenizer.latent_shape, np.float32), "labels": ((), np.int32)}

    def fixed_tables(self):
        return {"network": self.network.module.fixed_table_size}

    def images(self, params, samples, radius=0.0):
        """Decoded (B, H, W, C) uint8."""
        return to_uint8(self.tokenizer.decode(params, self.at_radius(params, samples, radius)))

    def at_radius(self, params, samples, radius):
        """Samples with tokens of another radius than the flow's, where a decoder is better there
        (methods.md D.7, D.10); 0 leaves them."""
        return jnp.where(radius > 0.0, sphere.normalize(samples, radius), samples)
