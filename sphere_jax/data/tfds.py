"""Data sets of TensorFlow Datasets, from the ArrayRecord files that it prepared.

tensorflow-datasets is an optional install, and TensorFlow is not needed to read. Pictures stay
encoded until they are indexed, and are decoded as those of a folder are.
"""

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.data.checks import check_labels, every_fifth_of_each_class
from sphere_jax.data.folders import Pictures
from sphere_jax.data.pictures import decode
from sphere_jax.errors import UserError
from sphere_jax.options import Data

HELD_OUT = ("validation", "test")  # the first that a data set has


@dataclasses.dataclass(frozen=True, eq=False)
class Records(Pictures):
    """Pictures by number: those of the first source, then those of the second."""

    sources: tuple[Any, ...] = ()

    @property
    def listing(self) -> bytes:
        """The data set's name and version, the number and size of every picture, how resized."""
        return os.fsencode(f"{self.root}\n") + super().listing

    def _read(self, name: int) -> np.ndarray:
        number, first = int(name), len(self.sources[0])
        source, row = (0, number) if number < first else (1, number - first)
        encoded = io.BytesIO(self.sources[source][row]["image"])
        return decode(encoded, f"Picture {number} of {self.root}", self.data)


def read_tfds(data: Data) -> tuple[Records, np.ndarray, np.ndarray]:
    """The images of a data set (N), their labels int32 (N,), and which are held out, boolean (N,).

    `data.path` is a name as `tfds.builder` takes ("imagenet2012:5.1.0") or the folder of a prepared
    data set; `train` is trained on, `validation` or else `test` held out, or, without either, every
    fifth of each class. Every record is read once for its label.

    Raises:
      UserError: tensorflow-datasets or the data set is missing, is not prepared as ArrayRecord, or
        has no images with labels.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            "config.data.source='tfds' needs an optional package: "
            "pip install tensorflow-datasets==4.9.10"
        ) from error
    builder = _builder(tfds, data.path)
    if not builder.is_prepared():
        raise UserError(
            f"'{data.path}' is not prepared in {builder.data_path}; once, where TensorFlow is "
            f"installed, run tfds build {builder.name} --file_format=array_record"
        )
    if not {"image", "label"} <= set(builder.info.features):
        raise UserError(f"{data.path} has {', '.join(builder.info.features)}, not image and label.")
    splits = set(builder.info.splits)
    if "train" not in splits:
        raise UserError(f"{data.path} has no split train, but {', '.join(sorted(splits))}.")
    names = ["train", *[name for name in HELD_OUT if name in splits][:1]]
    try:
        raw = {"image": tfds.decode.SkipDecoding()}
        sources = tuple(builder.as_data_source(split=name, decoders=raw) for name in names)
    except (NotImplementedError, OSError) as error:
        raise UserError(
            f"'{data.path}' is prepared, but not as ArrayRecord; run tfds build {builder.name} "
            "--file_format=array_record"
        ) from error
    rows = [(r["label"], len(r["image"])) for source in sources for r in source]
    labels, sizes = np.array(rows, np.int64).reshape(-1, 2).T
    labels = check_labels(labels, len(rows), data.path)
    pictures = Records(
        Path(builder.info.full_name), np.arange(len(rows)), sizes, data, sources=sources
    )
    if len(sources) == 1:
        return pictures, labels, every_fifth_of_each_class(labels)
    return pictures, labels, np.arange(len(rows)) >= len(sources[0])


def _builder(tfds, path: str):
    """By the name of a data set or the folder of one. Raises UserError."""
    try:
        if path and Path(path).is_dir():
            return tfds.builder_from_directory(path)
        return tfds.builder(path)
    except (ValueError, OSError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"config.data.path='{path}' names no data set of TensorFlow Datasets ({reason})."
        ) from error
