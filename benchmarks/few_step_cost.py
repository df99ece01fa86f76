"""Cost of a few-step image: Sphere Encoder (E) against Sphere Latent Encoder (B).

    python -m benchmarks.few_step_cost                       published sizes, FLOPs only
    python -m benchmarks.few_step_cost --measure --rounds 7  and the small configs, timed here

Published sizes: ImageNet-256, XL networks, 4 guided steps, combo guidance for E (NFE 14), two
evaluations a step and one RAE decoding for B (NFE 8). FLOPs are by XLA's cost analysis of each
network lowered on its own, layers unrolled, batch 1, float32; nothing is allocated.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import rounds, smoke
from sphere_jax.cli import run_command
from sphere_jax.config.config_files import load_config
from sphere_jax.nn.attention import Attention
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.mlp import MLP
from sphere_jax.nn.norms import LayerNorm
from sphere_jax.nn.transformer_layers import Block, Stack
from sphere_jax.runs.system import System

ROOT = Path(__file__).parents[1]
STEPS = 4
CLAIM = 6.5  # times fewer FLOPs, the paper of B
TINY = ["tokenizer.width=32", "tokenizer.depth=1", "tokenizer.heads=2", "tokenizer.mixer_depth=1"]
TINY_LATENT = ["tokenizer.widths=8,16", "tokenizer.latent_channels=4",
               "model.width=32", "model.depth=1", "model.heads=2"]  # fmt: skip


class RAEDecoder(nnx.Module):
    """The shapes of RAE's ViT-XL decoder (docs/systems/sphere_latent.md#frozen-tokenizer-rae), for
    its FLOPs alone: 256 tokens and a class token, 28 layers of width 1152, MLP 4096, patches of 16
    pixels."""

    def __init__(self, *, rngs: nnx.Rngs):
        def block(rngs):
            return Block(
                1152,
                norm=lambda: LayerNorm(1152),
                attention=lambda rngs: Attention(1152, 16, rngs=rngs),
                mlp=lambda rngs: MLP(1152, 4096, rngs=rngs),
                conditional=False,
                rngs=rngs,
            )

        self.input = Linear(768, 1152, rngs=rngs)
        self.blocks = Stack(block, 28, unroll=True, rngs=rngs)
        self.output = Linear(1152, 16 * 16 * 3, rngs=rngs)

    def __call__(self, z):
        return self.output(self.blocks(self.input(z), None))


def load(name: str, overrides: list[str]) -> System:
    """That of configs/NAME.py with some "group.option=value"."""
    config = load_config(str(ROOT / f"configs/{name}.py"), [f"--config.{x}" for x in overrides])
    return System(config)


def flops(network: Network, *inputs) -> float:
    """Of one application, by XLA."""
    params = network.shapes
    return jax.jit(network.apply).lower(params, *inputs).cost_analysis()["flops"]


def published_flops() -> dict[str, float]:
    """One evaluation of one image by the published networks."""
    options = ["unroll=True", "size=xlarge", "compute_dtype=float32"]
    e = load("imagenet_sphere_encoder", [f"tokenizer.{text}" for text in options])
    b = load("imagenet_sphere_latent", ["model.unroll=True", "model.compute_dtype=float32"])
    latents = jax.ShapeDtypeStruct((1, 257, 768), jnp.float32)
    rae = flops(Network(lambda rngs: RAEDecoder(rngs=rngs)), latents)
    return system_flops(e, b) | {"RAE decoder": rae}


def tiny_flops() -> dict[str, float]:
    """As `published_flops`, of the small configs at tiny sizes; the VAE's decoder is RAE's."""
    e, b = load("mnist_sphere_encoder", TINY), load("mnist_sphere_latent", TINY_LATENT)
    latents = jax.ShapeDtypeStruct((1, *b.tokenizer.latent_shape), jnp.float32)
    return system_flops(e, b) | {"RAE decoder": flops(b.tokenizer.decoder, latents)}


def system_flops(e: System, b: System) -> dict[str, float]:
    """Of E's autoencoder and B's denoiser."""
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    tokenizer = e.tokenizer
    image = jax.ShapeDtypeStruct((1, *tokenizer.image_shape), jnp.float32)
    latent = jax.ShapeDtypeStruct((1, *tokenizer.latent_shape), jnp.float32)
    z = jax.ShapeDtypeStruct((1, *b.tokenizer.latent_shape), jnp.float32)
    return {
        "E encoder XL": flops(tokenizer.encoder, image, label),
        "E decoder XL": flops(tokenizer.decoder, latent, label),
        "B denoiser XL": flops(b.generator.network, z, None, label),
    }


def print_flops(found: dict[str, float]) -> None:
    print("published sizes, GFLOP of one evaluation of one image (XLA)")
    for name, value in found.items():
        print(f"  {name:<14}{value / 1e9:9.0f}")
    encoder, decoder, denoiser, rae = found.values()
    for guided in (True, False):
        times = 2 if guided else 1
        ours = times * STEPS * denoiser + rae
        theirs = times * (STEPS * decoder + (STEPS - 1) * encoder)
        print(f"{STEPS} steps, {'guided' if guided else 'no guidance'}: E {theirs / 1e9:,.0f}, "
              f"B {ours / 1e9:,.0f} GFLOP an image: B needs {theirs / ours:.2f} x fewer "
              f"(the paper says {CLAIM} x)")  # fmt: skip


def measure(count: int, batch: int, tiny: bool) -> None:
    """Images a second of the two small configs, random weights, interleaved.

    "B" has E's width and depth, as XL and XL above; "B, shipped" has the config's own.
    """
    calls, sizes = {}, {}
    e = load("mnist_sphere_encoder", TINY if tiny else [])
    same = e.config.tokenizer
    equal = [f"model.{key}={getattr(same, key)}" for key in ("width", "depth", "heads")]
    shipped = TINY_LATENT if tiny else []
    for name, system in (
        ("E", e),
        ("B", load("mnist_sphere_latent", [*shipped, *equal])),
        ("B, shipped", load("mnist_sphere_latent", shipped)),
    ):
        method = system.generator
        guided = dataclasses.replace(method.sampler, steps=STEPS, scale=1.5)
        params = random_params(system)
        sizes[name] = num_parameters(params)

        def generate(params, keys, labels, method=method, guided=guided):
            samples, _ = method.generate(params, keys, labels, jnp.float32(1.5), guided)
            return method.images(params, samples)

        compiled = jax.jit(generate, compiler_options=quick_products())
        inputs = jax.random.split(jax.random.key(0), batch), jnp.arange(batch) % 10
        calls[name] = lambda c=compiled, p=params, i=inputs: jax.block_until_ready(c(p, *i))
    times = rounds.time_rounds(calls, count, seconds=0)
    print(f"\nsmall configs, {STEPS} guided steps, {batch} images, {count} interleaved rounds, "
          f"{jax.device_count()} x {jax.devices()[0].device_kind}")  # fmt: skip
    for name, seconds in times.items():
        print(f"  {name}: {sizes[name]:,} parameters, "
              f"{1e3 * statistics.median(seconds) / batch:.2f} ms an image")  # fmt: skip
    for name in ("B", "B, shipped"):
        ratios = [e / b for e, b in zip(times["E"], times[name], strict=True)]
        print(f"  {name} is {rounds.spread(ratios, '{:.2f}')} x as fast as E (min / median / max)")


def random_params(system: System) -> dict:
    """What `generate` and `images` use, with noise on every leaf."""
    tokenizer, method = system.tokenizer, system.generator
    keys = jax.random.split(jax.random.key(0), 3)
    d = tokenizer.latent_shape[-1]
    params = {
        "encoder": tokenizer.encoder.init(keys[0]),
        "decoder": tokenizer.decoder.init(keys[1]),
    }
    if "network" in method.trains:
        params |= {"network": method.init(keys[2], {})["network"]}
        params |= {"statistics": {"mean": jnp.zeros(d), "std": jnp.ones(d)}}
        del params["encoder"]  # not used to sample
    rng = np.random.default_rng(0)  # off the zero start
    return jax.tree.map(lambda p: p + 0.02 * rng.normal(size=p.shape).astype(np.float32), params)


def main(argv: list[str]) -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--measure", action="store_true", help="time the small configs, too")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--batch", type=int, default=64)
    args = smoke.parse(flags, argv, lambda: ["--measure", "--rounds=1", "--batch=2"])
    print_flops(tiny_flops() if args.smoke else published_flops())
    if args.measure:
        measure(args.rounds, args.batch, tiny=args.smoke)


if __name__ == "__main__":
    run_command(main)
