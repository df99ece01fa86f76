"""The work of `benchmarks.accelerator_study` before its scores: encoding, trainings in turns."""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions, OptimizerOptions
from sphere_jax.data.sources.npz import SOURCE
from sphere_jax.geometry.spaces import Space, make_space
from sphere_jax.methods.base import Method
from sphere_jax.methods.decoder import DecoderFinetuning, DecoderOptions
from sphere_jax.methods.flow import Flow, FlowOptions
from sphere_jax.models.sit import NETWORK
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.norms import per_channel
from sphere_jax.nn.pixels import to_float
from sphere_jax.nn.resize import pillow_bicubic
from sphere_jax.sampling import Sampler
from sphere_jax.tokenizers.tiny_vae import TinyVAE
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import init_state, make_train_step
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import load_weights
from sphere_jax.weights.tensors import Layout, Source, convert, named_leaves


class Arm(NamedTuple):
    name: str
    path: str  # of config.space


ARMS = (Arm("linear", "linear"), Arm("slerp", "slerp"))


class Trained(NamedTuple):
    """weights: averages by arm. curves: {arm: (steps, velocity or pixel error)}."""

    weights: dict[str, Params]
    steps: int
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    report: dict[str, Any]


@dataclasses.dataclass
class Study:
    """Latents and images are on the device. Latents are normalised by channel; each image is there
    twice, the second time mirrored."""

    args: argparse.Namespace
    tokenizer: TinyVAE
    params: Params  # of the tokenizer, with statistics
    images: jax.Array  # uint8 (N, side, side, 3)
    latents: jax.Array  # (2, N, h, w, d) float32
    labels: jax.Array
    heldout: np.ndarray
    about: dict[str, Any]

    @classmethod
    def encoded(cls, args: argparse.Namespace) -> "Study":
        """Reads, resizes and encodes the images. Raises UserError."""
        split = SOURCE.load(
            DataOptions(
                source="npz", path=str(args.images), image_size=args.native, channels=3,
                num_classes=args.classes,
            )
        )  # fmt: skip
        plain = TinyVAE.of_kind(args.side, args.kind)
        entry = catalogue()[args.kind]
        whole = load(args.tokenizer, args.kind, entry.network(), entry.layouts)
        params = jax.tree.map(jnp.asarray, {part: whole[part] for part in plain.parts})

        @jax.jit
        def prepare(params, images):
            large = pillow_bicubic(images, args.side, args.side).astype(jnp.uint8)
            both = jnp.stack([large, large[:, :, ::-1]])
            return large, jax.vmap(lambda x: plain.encode(params, to_float(x)))(both)

        train, held = (np.asarray(x.arrays["images"]) for x in (split.train, split.heldout))
        found = list(_batched(partial(prepare, params), train, args.draw))
        images = jnp.concatenate([each[0] for each in found])
        latents = jnp.concatenate([each[1] for each in found], axis=1)
        mean, std = latents.mean((0, 1, 2, 3)), latents.std((0, 1, 2, 3))
        held = list(_batched(partial(prepare, params), held, args.draw))
        return cls(
            args,
            TinyVAE.of_kind(args.side, args.kind, whiten=True),
            params | {"statistics": {"mean": mean, "std": std}},
            images,
            (latents - per_channel(mean, 5)) / per_channel(std, 5),
            jnp.asarray(split.train.labels, jnp.int32),
            np.concatenate([np.asarray(each[0]) for each in held]),
            {
                "training_images": len(train),
                "heldout_images": len(split.heldout),
                "latent_shape": list(plain.latent_shape),
                "latent_std": [float(std.min()), float(std.max())],
            },
        )

    def space(self, arm: Arm) -> Space:
        return make_space(arm.path, "token", 0.0, self.tokenizer.latent_shape)

    @property
    def network(self) -> Network:
        a, gpu = self.args, jax.default_backend() != "cpu"
        options = NETWORK.Options(
            width=a.width, depth=a.depth, heads=a.heads, patch=1, unroll=False,
            compute_dtype="bfloat16" if gpu else "float32", remat="products" if gpu else "none",
        )  # fmt: skip
        return NETWORK.build(options, self.tokenizer.latent_shape, a.classes)

    def flow(self, arm: Arm) -> Flow:
        a = self.args
        optimizer = OptimizerOptions(learning_rate=a.rate, warmup=min(500, a.most_steps))
        options = FlowOptions(batch_size=a.batch, ema_decay=a.ema, optimizer=optimizer)
        sampler = Sampler(steps=a.sampler_steps)
        return Flow(self.tokenizer, self.space(arm), self.network, a.classes, options, sampler)

    # --- training ---------------------------------------------------------------------------------

    def train_flows(self, deadline: float) -> Trained:
        """Both, in turns, for equal steps, until `deadline` (`time.monotonic`)."""

        def batch(key: jax.Array, latents: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
            rows_key, mirror_key = jax.random.split(key)
            rows = jax.random.randint(rows_key, (self.args.batch,), 0, len(labels))
            mirrored = jax.random.bernoulli(mirror_key, 0.5, (self.args.batch,)).astype(int)
            return {"latents": latents[mirrored, rows], "labels": labels[rows]}

        methods = {arm.name: self.flow(arm) for arm in ARMS}
        data = self.latents, self.labels
        return self._in_turns(methods, {}, batch, data, deadline, "network", "velocity_error")

    def train_decoders(self, seconds: float) -> Trained:
        """Of projected latents, and of raw ones as the control."""

        def batch(key: jax.Array, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
            rows = jax.random.randint(key, (self.args.decoder_batch,), 0, len(labels))
            return {"images": images[rows], "labels": labels[rows]}

        optimizer = OptimizerOptions(
            learning_rate=self.args.decoder_rate, warmup=min(100, self.args.most_steps)
        )
        options = DecoderOptions(
            batch_size=self.args.decoder_batch, ema_decay=self.args.ema, optimizer=optimizer
        )
        methods = {
            arm.name: DecoderFinetuning(self.tokenizer, self.space(arm), options) for arm in ARMS
        }
        deadline = time.monotonic() + seconds
        data = self.images, self.labels
        return self._in_turns(methods, self.params, batch, data, deadline, "decoder", "pixel")

    def _in_turns(
        self,
        methods: dict[str, Method],
        frozen: Params,
        batch: Callable[..., dict[str, jax.Array]],
        data: tuple[jax.Array, ...],
        deadline: float,
        part: str,
        metric: str,
    ) -> Trained:
        """Blocks of steps of one after the other: all have seen the same batches, whenever it ends.

        `batch(key, *data)`; data are arguments of the steps, not constants of their programs.
        The number of steps is chosen from the time of the second block of each.
        """
        args, key = self.args, jax.random.key(self.args.seed)
        states, steps = {}, {}
        for name, method in methods.items():
            optimizer = make_optimizer(method.options.optimizer, args.most_steps)
            inner = make_train_step(method, method.options, optimizer)

            def step(state, frozen, key, data, inner=inner):
                key = jax.random.fold_in(key, state["progress"]["step"])
                return inner(state, frozen, batch(key, *data))

            steps[name] = jax.jit(step, donate_argnums=0)
            fresh = partial(init_state, method, optimizer)
            fresh = jax.jit(fresh, compiler_options=run_once_options())
            states[name] = fresh(key, frozen)
        values, finite = {name: [] for name in methods}, {name: [] for name in methods}
        seconds = {name: 0.0 for name in methods}
        most, done, batch_key = args.most_steps, 0, jax.random.fold_in(key, 1)
        while done < most and (done < 2 * args.block or time.monotonic() < deadline):
            block = min(args.block, most - done)
            for name in methods:
                begun = time.monotonic()
                for _ in range(block):
                    states[name], metrics = steps[name](states[name], frozen, batch_key, data)
                    values[name].append(metrics[metric])
                    finite[name].append(metrics["finite"])
                jax.block_until_ready(states[name])
                seconds[name] = (time.monotonic() - begun) / block
            done += block
            if done == 2 * args.block:  # the first was compilation
                left = max(0.0, deadline - time.monotonic()) / sum(seconds.values())
                most = min(most, done + args.block * math.floor(left / args.block))
                print(f"  {done + math.floor(left):,} steps fit; {seconds} s a step", flush=True)
        curves = {
            name: (np.arange(1, done + 1), _smooth(np.asarray(jax.device_get(found))))
            for name, found in values.items()
        }
        report = {
            "steps": done,
            "steps_left_out": {  # not finite, so that nothing was changed by them
                name: done - int(sum(jax.device_get(found))) for name, found in finite.items()
            },
            "seconds_a_step": seconds,
            metric: {name: _thinned(*curve) for name, curve in curves.items()},
        }
        weights = {name: states[name]["ema"][part] for name in methods}
        return Trained(weights, done, curves, report)


def load(path: Path, name: str, network: Network, layouts: Callable) -> Params:
    """Weights of a network of the catalogue, from an .npz of tensors by published names or by ours,
    or from a file that `weights.stored.load_weights` reads. Raises UserError."""
    if path.suffix != ".npz":
        params = load_weights(path, name, network, layouts)
        return jax.tree.map(np.asarray, params)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tensors = dict(arrays)
        ours = Layout("sphere_jax", {leaf: Source(leaf) for leaf in named_leaves(network.shapes)})
        return convert(tensors, [ours, *layouts(network)], network)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} does not give the weights of '{name}': {error}.") from error


def slices(array: np.ndarray, size: int):
    """Of one size; the last is filled with its first row."""
    for start in range(0, len(array), size):
        rows = np.arange(start, start + size)
        yield array[np.where(rows < len(array), rows, start)]


def _batched(function: Callable, images: np.ndarray, size: int):
    """Results of whole batches, images and latents, the last cut to what counts."""
    for number, batch in enumerate(slices(images, size)):
        count = min(size, len(images) - number * size)
        large, latents = function(batch)
        yield large[:count], latents[:, :count]


def _smooth(values: np.ndarray, span: int = 100) -> np.ndarray:
    """The mean of the last `span` values, of fewer at the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    stops = np.arange(1, len(values) + 1)
    starts = np.maximum(stops - span, 0)
    return (sums[stops] - sums[starts]) / (stops - starts)


def _thinned(steps: np.ndarray, values: np.ndarray, most: int = 100) -> list[list[float]]:
    rows = np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))
    return [[int(steps[row]), float(values[row])] for row in rows]
