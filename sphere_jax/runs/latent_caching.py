"""A data set encoded into a latent cache, sharded over devices and processes, and resumable."""

import os
from pathlib import Path
from typing import Any

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import is_main_process
from sphere_jax.config.options import Config
from sphere_jax.data.class_names import classes_of, with_classes_counted, write_classes
from sphere_jax.data.latent_cache import CacheWriter
from sphere_jax.data.shards import PARTS, Shard, write_missing
from sphere_jax.data.source import load
from sphere_jax.runs.encoder import Encoder
from sphere_jax.runs.system import build_tokenizer


def encode_data_set(
    config: Config, folder: str | os.PathLike, shard_size: int, dtype: str, batch: int
) -> dict[str, Any]:
    """Encodes what is not in `folder` yet, `batch` images a device at a time; returns the index.

    Processes take shards in turn and wait for each other at the end; a process splits a batch over
    its devices.

    Raises:
      UserError: the config's tokenizer is trained by a run, its weights or the data are wrong, or
        the folder holds another cache.
    """
    folder, tokenizer = Path(folder), config.tokenizer_class
    if tokenizer.trained_by_run(config.tokenizer) or not tokenizer.decodes:
        raise UserError(
            f"config.tokenizer.name='{config.tokenizer.name}' is trained by a run; only "
            "tokenizers with weights from files can be cached."
        )
    if not config.source.holds_images:
        raise UserError(f"config.data.source='{config.data.source}' holds no images to encode.")
    config = with_classes_counted(config)
    parts = vars(load(config.data))  # "train", "heldout"
    plan = {
        "made_with": tokenizer.latents_made_with(config.data, config.tokenizer),
        "encoded_in": config.tokenizer.compute_dtype,
        "latent_shape": build_tokenizer(config.data, config.tokenizer).latent_shape,
        "dtype": dtype,
        "shard_size": shard_size,
        "data": {part: parts[part].fingerprint for part in PARTS},
    }
    if config.tokenizer.samples:
        plan["moments"] = True
    labels = {part: parts[part].labels for part in PARTS}
    classes = classes_of(config.data)
    cache = CacheWriter(folder, plan, labels, _image_source(config))
    encoder = Encoder(config, batch)
    if is_main_process():
        cache.write_plan()
        write_classes(folder, classes)

    def write(shard: Shard) -> None:
        images = parts[shard.part].arrays["images"]
        cache.write(shard, encoder.latents(images, shard.start, shard.stop))

    write_missing(folder, cache.shards, cache.is_finished, write, "encoded")
    return cache.write_index(write=is_main_process())


def _image_source(config: Config) -> dict[str, str]:
    """Where the images are, so that samples can be scored against them."""
    path = config.data.path
    if path and Path(path).exists():  # not a name of TensorFlow Datasets
        path = str(Path(path).absolute())
    return {"source": config.data.source, "path": path}
