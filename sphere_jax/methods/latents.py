"""A data set of images as a data set of latents."""

import numpy as np

from sphere_jax.data.sources import Source, Split
from sphere_jax.tokenizers import Precomputed, Tokenizer
from sphere_jax.tokenizers.images import to_float


def has_images(tokenizer: Tokenizer) -> bool:
    """Whether latents can be decoded here."""
    return not isinstance(tokenizer, Precomputed)


def encoded(tokenizer: Tokenizer, source: Source, params, map_over) -> Source:
    """Every image encoded once; latents that are there already pass through."""
    if not has_images(tokenizer):
        return source

    def encode(p, images):
        return tokenizer.encode(p, to_float(images))

    found = map_over(encode, params, source.arrays["images"])
    return Source({"latents": found, "labels": source.arrays["labels"]})


def encoded_split(tokenizer: Tokenizer, split: Split, params, map_over) -> Split:
    """Both parts of a data set, encoded."""
    parts = (encoded(tokenizer, part, params, map_over) for part in (split.train, split.heldout))
    return Split(*parts)


def evenly(source: Source, count: int) -> Source:
    """At most `count` of its examples, in memory and in order: what a stage measures itself on."""
    rows = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    return Source(source.read(rows))
