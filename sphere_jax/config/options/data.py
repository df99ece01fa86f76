"""Images, and where they come from."""

import dataclasses
from typing import Literal

from sphere_jax.config.options.option import option

ImageSource = Literal[  # and what `path` is
    "mnist5k",
    "digits",
    "npz",  # a file
    "cifar10",  # a folder of its binary version, or an .npz of JPEGs
    "folder",  # of class folders
    "array_record",  # a folder of train*.array_record and, say, test*.array_record
    "tfds",  # a name of TensorFlow Datasets, or the folder of a prepared data set
]
Source = Literal[
    ImageSource,
    "latents",  # a folder of latents.npy and labels.npy
    "cache",  # a folder that `sphere_jax.prepare latents` wrote
]


@dataclasses.dataclass(frozen=True)
class Data:
    source: Source = "mnist5k"
    path: str = ""
    image_size: int = option(32, 8)  # images are padded (28 -> 32) or resized to this
    resize: Literal["bicubic", "nearest", "adm"] = "bicubic"  # then a centre crop
    channels: Literal[1, 3] = 1
    num_classes: int = option(10, 1)
    flip: bool = False  # random horizontal flip of training images
    threads: int = option(0, 0, 64)  # batches read at once, ahead; 0 reads in the training thread
