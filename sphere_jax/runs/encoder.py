"""A frozen encoder over a data set: images to latents, original and mirrored."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.config.options import Config
from sphere_jax.distribution.mesh import batch_sharding, make_mesh, put_global, tree_shardings
from sphere_jax.distribution.placement import placed
from sphere_jax.nn.pixels import to_float
from sphere_jax.runs.network_files import load_tokenizer
from sphere_jax.runs.system import build_tokenizer


class Encoder:
    """Images to latents, and mirrored ones, on the devices of this process, `batch` images a device
    at a time. Raises UserError for weights that do not fit."""

    def __init__(self, config: Config, batch: int):
        tokenizer = build_tokenizer(config.data, config.tokenizer)
        self._mesh = make_mesh(devices=jax.local_devices())
        self._size = batch * self._mesh.devices.size
        params = load_tokenizer(tokenizer, config.tokenizer)
        params.pop("decoder", None)  # which a run may train
        self._params = put_global(self._mesh, params, tree_shardings(self._mesh, params))

        def encode(params, images):
            pairs = jnp.stack([images, images[:, :, ::-1]], 1)
            pairs = to_float(pairs.reshape(-1, *images.shape[1:]))
            if tokenizer.samples:
                latents = jnp.stack(tokenizer.moments(params, pairs), 1)
            else:
                latents = tokenizer.encode(params, pairs)
            return latents.reshape(len(images), 2, *latents.shape[1:])

        self._encode = jax.jit(placed(self._mesh, encode, once=True))

    def latents(self, images, start: int, stop: int) -> Iterator[np.ndarray]:
        """Float32 (B, 2, h, w, d) of `images[start:stop]`, original and mirrored, in batches; of a
        tokenizer that samples, mean and standard deviation (B, 2, 2, h, w, d).

        The images of the next batch are read while this one is on the devices.
        """
        pending = None
        for first in range(start, stop, self._size):
            found = images[first : min(first + self._size, stop)]
            count = len(found)
            padding = np.repeat(found[:1], self._size - count, axis=0)
            found = np.concatenate([found, padding])  # one program for all sizes
            found = put_global(self._mesh, found, batch_sharding(self._mesh))
            before, pending = pending, (self._encode(self._params, found), count)
            if before:
                yield np.asarray(before[0])[: before[1]]
        yield np.asarray(pending[0])[: pending[1]]
