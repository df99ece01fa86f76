"""Mean and spread of the channels of a data set's latents, or of every number in them, by which
tokenizers with `pretrained_statistics` normalise.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_parent
from sphere_jax.common.processes import is_main_process
from sphere_jax.common.progress import Progress
from sphere_jax.config.options import Config
from sphere_jax.data.latent_cache import check_cache, read_index
from sphere_jax.data.moments import drawn, merged, moments_of, statistics_of
from sphere_jax.data.source import load
from sphere_jax.runs.encoder import Encoder
from sphere_jax.runs.system import build_tokenizer
from sphere_jax.weights.stored import fingerprint_of, write_weights


def write_statistics(config: Config, out: str | os.PathLike, batch: int) -> dict[str, Any]:
    """Writes mean and standard deviation of the channels of the training images' latents, `batch`
    images a device at a time; returns them as `data.moments.statistics_of` does. A latent cache
    stores them: nothing is encoded. For a tokenizer that `whitens_positions` they are mean and
    variance of every number, (h, w, d); they are returned as those of L channels.

    The latents are those of the tokenizer without statistics, unpacked; one sample of each image
    if generators train on samples. Every process encodes all images.

    Raises:
      UserError: the tokenizer uses no such statistics, or is given some; its weights or the data
        are wrong; the file cannot be written.
    """
    tokenizer = config.tokenizer_class
    unpacked = tokenizer.without_statistics(config.tokenizer)
    out = Path(out)
    if out.suffix != ".safetensors":
        raise UserError(f"--out={out} must end with .safetensors.")
    make_parent(out)
    if config.source.made_of_images and tokenizer.whitens_positions:
        raise UserError(
            f"{config.data.path} stores statistics of channels, and config.tokenizer.name="
            f"'{config.tokenizer.name}' normalises every number: measure the images."
        )
    if config.source.made_of_images:
        found, count = _cached(config, packed=unpacked != config.tokenizer)
    else:
        found, count = _measured(dataclasses.replace(config, tokenizer=unpacked), batch)
    params = {name: np.float32(found[f"channel_{name}"]) for name in ("mean", "std")}
    params["std"] = np.maximum(params["std"], 1e-6)  # of a dead channel
    if tokenizer.whitens_positions:
        shape = build_tokenizer(config.data, unpacked).latent_shape
        params = {"mean": params["mean"].reshape(shape), "var": (params["std"] ** 2).reshape(shape)}
    if is_main_process():
        name, path = tokenizer.statistics_source(config.data, unpacked)
        size, weights = config.data.image_size, fingerprint_of(path)
        what = "samples of " if config.tokenizer.samples else ""
        source = f"{what}{count} images of {size} px, mirrored too, by weights {weights}"
        write_weights(out, params, name, source)
    return found


def _cached(config: Config, packed: bool) -> tuple[dict[str, Any], int]:
    """The statistics that a latent cache stores, and the number of its images."""
    folder = Path(config.data.path)
    index = read_index(folder)
    if index["made_with"].get("config.tokenizer.pretrained_statistics fingerprint"):
        raise UserError(f"{folder} holds normalised latents; give a cache made without statistics.")
    made_with = config.tokenizer_class.latents_made_with(config.data, config.tokenizer)
    check_cache(folder, made_with)
    if index.get("moments", False) != config.tokenizer.samples:
        found, option = ("samples", "sample") if index.get("moments") else ("means", "mean")
        raise UserError(
            f"{folder} stores the statistics of {found}: set config.tokenizer.latents='{option}', "
            "or measure the images."
        )
    found = index["statistics"]
    if packed:  # four neighbours of a channel: one group
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
    encoder = Encoder(config, batch)
    images, moments, done = load(config.data).train.arrays["images"], None, 0
    rng = np.random.default_rng(0)
    progress = Progress("encoded", len(images))
    for latents in encoder.latents(images, 0, len(images)):
        used = drawn(latents, rng) if config.tokenizer.samples else latents
        if config.tokenizer_class.whitens_positions:
            used = used.reshape(-1, np.prod(used.shape[2:]))  # a latent as one token
        moments, done = merged(moments, moments_of(used)), done + len(latents)
        progress.done(done)
    return statistics_of(moments), len(images)
