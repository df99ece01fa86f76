"""A data set encoded into a latent cache: sharded over devices and processes, resumable."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.building import build_tokenizer
from sphere_jax.data.latent_cache import PARTS, CacheWriter
from sphere_jax.data.sources import load
from sphere_jax.distribution.mesh import batch_sharding, make_mesh, put_global, tree_shardings
from sphere_jax.distribution.start import is_main_process
from sphere_jax.errors import UserError
from sphere_jax.options import Config
from sphere_jax.tokenizers import Pretrained
from sphere_jax.tokenizers.images import to_float
from sphere_jax.tokenizers.pretrained import latents_made_with, load_pretrained
from sphere_jax.training.logging import duration, say


def encode_data_set(
    config: Config, folder: Path, shard_size: int, dtype: str, batch: int
) -> dict[str, Any]:
    """Encodes what is not in `folder` yet, `batch` images a device at a time; returns the index.

    Processes take shards in turn and meet at the end; a process splits a batch over its devices.

    Raises:
      UserError: the config's tokenizer is one that a run trains, its weights or the data are not
        what they should be, or the folder holds another cache.
    """
    tokenizer = build_tokenizer(config)
    if not isinstance(tokenizer, Pretrained):
        raise UserError(
            f"config.tokenizer.name='{config.tokenizer.name}' is trained by a run and not known "
            "beforehand; only 'kl_vae', 'tiny_vae' and 'rae' can be cached."
        )
    if config.data.source == "cache":
        raise UserError("config.data.source='cache' holds no images to encode.")
    made_with = latents_made_with(config.data, config.tokenizer)
    parts = vars(load(config.data))  # "train", "heldout"
    plan = {
        "made_with": made_with,
        "encoded_in": config.tokenizer.compute_dtype,
        "latent_shape": tokenizer.latent_shape,
        "dtype": dtype,
        "shard_size": shard_size,
        "data": {part: parts[part].fingerprint for part in PARTS},
    }
    cache = CacheWriter(folder, plan, {part: parts[part].labels for part in PARTS})
    if is_main_process():
        cache.begin()
    encoder = Encoder(config, tokenizer, batch)
    own = cache.shards[jax.process_index() :: jax.process_count()]
    todo = [shard for shard in own if not cache.is_finished(shard)]
    if len(todo) < len(own):
        say(f"{folder}: {len(own) - len(todo)} of {len(own)} files finished before and checked")
    started, done, left = time.monotonic(), 0, sum(shard.stop - shard.start for shard in todo)
    for shard in todo:
        images = parts[shard.part].arrays["images"]
        cache.write(shard, encoder.latents(images, shard.start, shard.stop))
        done, left = done + shard.stop - shard.start, left - shard.stop + shard.start
        rate = done / (time.monotonic() - started)
        say(f"{shard.name}: {rate:,.1f} img/s a process  {duration(left / rate)} left")
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("all shards are written")
    return cache.finish(write=is_main_process())


class Encoder:
    """Images to latents, and mirrored ones, on the devices of this process."""

    def __init__(self, config: Config, tokenizer: Pretrained, batch: int):
        self._mesh = make_mesh(devices=jax.local_devices())
        self._size = batch * self._mesh.devices.size
        params = load_pretrained(tokenizer, config.tokenizer)
        del params["decoder"]
        self._params = put_global(self._mesh, params, tree_shardings(self._mesh, params))

        @jax.jit
        def encode(params, images):
            pairs = jnp.stack([images, images[:, :, ::-1]], 1)
            latents = tokenizer.encode(params, to_float(pairs.reshape(-1, *images.shape[1:])))
            return latents.reshape(len(images), 2, *tokenizer.latent_shape)

        self._encode = encode

    def latents(self, images, start: int, stop: int) -> Iterator[np.ndarray]:
        """Float32 (B, 2, h, w, d) of `images[start:stop]`, as they are and mirrored, in batches.

        The images of the next batch are read while this one is on the devices.
        """
        pending = None
        for first in range(start, stop, self._size):
            found = images[first : min(first + self._size, stop)]
            count = len(found)
            padding = np.repeat(found[:1], self._size - count, axis=0)
            found = np.concatenate([found, padding])  # one program for all
            placed = put_global(self._mesh, found, batch_sharding(self._mesh))
            before, pending = pending, (self._encode(self._params, placed), count)
            if before:
                yield np.asarray(before[0])[: before[1]]
        yield np.asarray(pending[0])[: pending[1]]
