"""A data set of images as a data set of latents."""

from sphere_jax.data.sources import Source, Split
from sphere_jax.tokenizers import Precomputed, Tokenizer
from sphere_jax.tokenizers.images import to_float


def has_images(tokenizer: Tokenizer) -> bool:
    """Whether latents can be decoded here."""
    return not isinstance(tokenizer, Precomputed)


def encoded(tokenizer: Tokenizer, split: Split, params, map_over) -> Split:
    """Every image encoded once; latents that are there already pass through."""
    if not has_images(tokenizer):
        return split

    def encode(p, images):
        return tokenizer.encode(p, to_float(images))

    def latents(source: Source) -> Source:
        found = map_over(encode, params, source.arrays["images"])
        return Source({"latents": found, "labels": source.arrays["labels"]})

    return Split(latents(split.train), latents(split.heldout))
