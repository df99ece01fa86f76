"""A data set encoded: into a latent cache, sharded over devices and processes and resumable, or
into statistics of its latents.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.processes import is_main_process, meet
from sphere_jax.common.progress import Progress, say
from sphere_jax.config.options import Config
from sphere_jax.data.latent_cache import PARTS, CacheWriter, check_cache, read_index
from sphere_jax.data.moments import merged, moments_of, statistics_of
from sphere_jax.data.sources import load
from sphere_jax.distribution.mesh import batch_sharding, make_mesh, put_global, tree_shardings
from sphere_jax.nn.pixels import to_float
from sphere_jax.runs.building import build_tokenizer
from sphere_jax.tokenizers import Pretrained
from sphere_jax.tokenizers.pretrained import latents_made_with, load_pretrained
from sphere_jax.weights.stored import fingerprint_of, write_weights


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
    labels = {part: parts[part].labels for part in PARTS}
    cache = CacheWriter(folder, plan, labels, _whereabouts(config))
    encoder = Encoder(config, tokenizer, batch)
    if is_main_process():
        cache.begin()
    own = cache.shards[jax.process_index() :: jax.process_count()]
    todo = [shard for shard in own if not cache.is_finished(shard)]
    if len(todo) < len(own):
        say(f"{folder}: {len(own) - len(todo)} of {len(own)} files finished before and checked")
    progress, done = Progress("encoded", sum(map(len, todo)), "img/s a process"), 0
    for shard in todo:
        images = parts[shard.part].arrays["images"]
        cache.write(shard, encoder.latents(images, shard.start, shard.stop))
        done += len(shard)
        progress.done(done)
    meet("all shards are written")
    return cache.finish(write=is_main_process())


def write_statistics(config: Config, out: Path, batch: int) -> dict[str, Any]:
    """Writes mean and standard deviation of the channels of the training images' latents, `batch`
    images a device at a time; returns them as `data.moments.statistics_of` does. Of a latent cache,
    which has measured them, nothing is encoded.

    They are of latents as the tokenizer gives them without statistics, unpacked. Every process
    encodes all images.

    Raises:
      UserError: the tokenizer takes no such statistics, or is given some; its weights or the data
        are not what they should be; the file cannot be written.
    """
    settings = config.tokenizer
    takes = hasattr(settings, "pretrained_statistics") and settings.name != "rae"
    if not takes or settings.kind == "flux2":
        raise UserError(
            f"config.tokenizer.name='{settings.name}'{_of_kind(settings)} takes no statistics that "
            "are measured here; 'tiny_vae' does, and 'kl_vae' but for kind='flux2'."
        )
    if out.suffix != ".safetensors":
        raise UserError(f"--out={out} must end with .safetensors.")
    if settings.pretrained_statistics:
        raise UserError("config.tokenizer.pretrained_statistics must be empty to measure them.")
    if config.data.source == "cache":
        found, count = _kept(config)
    else:
        if settings.name == "kl_vae":
            settings = dataclasses.replace(settings, packed=False)
        found, count = _measured(dataclasses.replace(config, tokenizer=settings), batch)
    params = {name: np.float32(found[f"channel_{name}"]) for name in ("mean", "std")}
    params["std"] = np.maximum(params["std"], 1e-6)  # of a dead channel
    if is_main_process():
        size, weights = config.data.image_size, fingerprint_of(settings.pretrained)
        source = f"{count} images of {size} px, mirrored too, by weights {weights}"
        write_weights(out, params, f"{settings.kind}_statistics", source)
    return found


def _of_kind(settings) -> str:
    return f", kind='{settings.kind}'," if hasattr(settings, "kind") else ""


def _kept(config: Config) -> tuple[dict[str, Any], int]:
    """What a latent cache has measured as it was written, and the number of its images."""
    folder, settings = Path(config.data.path), config.tokenizer
    index = read_index(folder)
    if index["made_with"].get("config.tokenizer.pretrained_statistics fingerprint"):
        raise UserError(f"{folder} holds latents that statistics have normalised: not measured.")
    check_cache(folder, latents_made_with(config.data, settings))
    found = index["statistics"]
    if getattr(settings, "packed", False):  # four neighbours of a channel: one group
        mean, std = (np.reshape(found[f"channel_{name}"], (-1, 4)) for name in ("mean", "std"))
        spread = (std**2 + mean**2).mean(1) - mean.mean(1) ** 2
        found = {
            "tokens": 4 * found["tokens"],  # and their norms are not known
            "channel_mean": mean.mean(1),
            "channel_std": np.sqrt(spread),
        }
    return found, sum(shard["images"] for shard in index["shards"]["train"])


def _measured(config: Config, batch: int) -> tuple[dict[str, Any], int]:
    """Statistics of the latents of the training images, and the number of these."""
    encoder = Encoder(config, build_tokenizer(config), batch)
    images, moments, done = load(config.data).train.arrays["images"], None, 0
    progress = Progress("encoded", len(images))
    for latents in encoder.latents(images, 0, len(images)):
        moments, done = merged(moments, moments_of(latents)), done + len(latents)
        progress.done(done)
    return statistics_of(moments), len(images)


def _whereabouts(config: Config) -> dict[str, str]:
    """Where the images are, so that samples can be scored against them."""
    path = config.data.path
    if path and Path(path).exists():  # not a name of TensorFlow Datasets
        path = str(Path(path).absolute())
    return {"source": config.data.source, "path": path}


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
