"""Latents that another program encoded and will decode: nothing to do here."""

import dataclasses
from typing import ClassVar


@dataclasses.dataclass(frozen=True)
class Precomputed:
    """A tokenizer without images. Samples are latents, written as `.npz`."""

    latent_shape: tuple[int, int, int]
    image_shape: ClassVar = None
    parts: ClassVar = ()
