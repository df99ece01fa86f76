"""Latents that another program encoded and will decode: nothing to do here."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Precomputed:
    """A tokenizer without images. Samples are latents, written as `.npz`."""

    latent_shape: tuple[int, int, int]
