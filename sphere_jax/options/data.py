"""Images, and where they come from."""

import dataclasses
from typing import Literal

from sphere_jax.options.option import option


@dataclasses.dataclass(frozen=True)
class Data:
    source: Literal["mnist5k", "digits", "npz", "cifar10", "folder", "latents"] = "mnist5k"
    path: str = ""  # npz file; folder of CIFAR-10, of class folders, or of latents.npy, labels.npy
    image_size: int = option(32, 8)  # images are padded (28 -> 32) or resized to this
    resize: Literal["bicubic", "nearest", "adm"] = "bicubic"  # then a centre crop
    channels: Literal[1, 3] = 1
    num_classes: int = option(10, 1)
    flip: bool = False  # random horizontal flip of training images
    threads: int = option(0, 0, 64)  # grain read threads; 0 reads in the training thread
