"""Networks on images of `benchmarks.accelerator`: images per second of scoring and decoding."""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator_device import in_rounds
from benchmarks.accelerator_speed import report
from benchmarks.networks import CALLS
from benchmarks.smoke import random_images
from benchmarks.timed import noted
from sphere_jax.common import plugins
from sphere_jax.evaluation.features.published import PublishedFeatures
from sphere_jax.nn.functional import Network, Params
from sphere_jax.training.flops import matmul_flops
from sphere_jax.weights.catalogue import catalogue

SIDE, BATCH = 256, 64  # of images
DTYPES = ("float32", "bfloat16")


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--image_side", type=int, default=SIDE)
    flags.add_argument("--networks", nargs="*", default=["inception_fid", "sd_vae"])


def images(args: argparse.Namespace, deadline: float, found: dict[str, Any]) -> None:
    """A feature network from uint8 pixels on, as scores use it; of an autoencoder, its decoder.

    The share of the peak is that of bfloat16 alone: float32 products are exact in scores, and
    TensorFloat32 in decoders.
    """
    for number, name in enumerate(args.networks, 1):
        make = _features if plugins.exists("evaluation.features", "FEATURES", name) else _decoder
        now = time.monotonic()
        end = now + (deadline - now) / (len(args.networks) - number + 1)
        own = found[name] = {"failed": {}}
        contenders, flops = {}, 0.0
        for dtype in DTYPES:
            with noted(own["failed"], dtype):
                contenders[dtype], flops = make(name, dtype, args)
        times = in_rounds(contenders, args, end, own)
        batch = args.batch or BATCH
        title = f"{name}, {args.image_side} pixels, batch {batch}"
        own |= report(title, times, flops, batch, unrated=("float32",))


def _features(name: str, dtype: str, args: argparse.Namespace):
    kind = plugins.find("evaluation.features", "FEATURES", name, "--networks")
    network = catalogue()[kind.weights].network(dtype=jnp.dtype(dtype))
    features = PublishedFeatures(kind, "", None, network, random_tree(network.shapes))
    pixels = random_images(args.batch or BATCH, args.image_side)
    flops = matmul_flops(
        lambda p, x: features.compute(p, x, ("features",)), features.params, pixels
    )
    return lambda: jax.block_until_ready(features.batch(pixels)), flops


def _decoder(name: str, dtype: str, args: argparse.Namespace):
    network: Network = catalogue()[name].network(dtype=jnp.dtype(dtype))
    params = jax.tree.map(jnp.asarray, random_tree(network.shapes))
    factor, channels = _latents_of(network, args.image_side)
    side = args.image_side // factor
    latents = jax.random.normal(jax.random.key(0), (args.batch or BATCH, side, side, channels))

    def decode(params: Params, latents: jax.Array) -> jax.Array:
        return CALLS["decode"](network.bind(params), latents)

    run = jax.jit(decode)
    return lambda: run(params, latents).block_until_ready(), matmul_flops(decode, params, latents)


def _latents_of(network: Network, side: int) -> tuple[int, int]:
    """Pixels of a latent position's side, and channels."""
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    encode = lambda params, x: CALLS["encode"](network.bind(params), x)  # noqa: E731
    latents = jax.eval_shape(encode, network.shapes, image)
    return side // latents.shape[1], latents.shape[-1]


def random_tree(shapes: Params, seed: int = 0) -> Params:
    """Numbers for parameters whose shapes are given: about 1 for scales and variances, else small,
    so that a network of any kind stays finite."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf) -> np.ndarray:
        small = 0.05 * rng.standard_normal(leaf.shape, np.float32)
        positive = getattr(path[-1], "key", "") in ("scale", "var", "variance", "std")
        return (1 + np.abs(small) if positive else small).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
