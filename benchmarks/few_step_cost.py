"""What a few-step image costs: Sphere Encoder (E) against Sphere Latent Encoder (B).

    python -m benchmarks.few_step_cost                       published sizes, FLOPs only
    python -m benchmarks.few_step_cost --measure --rounds 7  and the small configs, timed here

Published sizes: ImageNet-256, XL networks, 4 guided steps, combo guidance for E (NFE 14), two
evaluations a step and one RAE decoding for B (NFE 8). FLOPs are by XLA's cost analysis of each
network lowered on its own, layers unrolled, batch 1, float32; nothing is allocated.
"""

import argparse
import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from sphere_jax.runs.building import build_method, build_tokenizer

from sphere_jax.config.config_files import load_config
from sphere_jax.nn.attention import Attention
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.mlp import MLP
from sphere_jax.nn.norms import LayerNorm
from sphere_jax.nn.transformer_layers import Block, Stack

STEPS = 4
CLAIM = 6.5  # times fewer FLOPs, the paper of B


class RAEDecoder(nnx.Module):
    """The shapes of RAE's ViT-XL decoder (docs/systems/sphere_latent.md#frozen-tokenizer-rae), for
    its cost alone: 256 tokens and one class token, 28 layers of width 1152, MLP 4096, patches of 16
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


def flops(network: Network, *inputs) -> float:
    """Of one application, by XLA."""
    params = jax.eval_shape(network.init, jax.random.key(0))
    return jax.jit(network.apply).lower(params, *inputs).cost_analysis()["flops"]


def published() -> None:
    unrolled = ["--config.tokenizer.unroll=True", "--config.tokenizer.size=xlarge",
                "--config.tokenizer.compute_dtype=float32"]  # fmt: skip
    tokenizer = build_tokenizer(load_config("configs/imagenet_sphere_encoder.py", unrolled))
    image = jax.ShapeDtypeStruct((1, *tokenizer.image_shape), jnp.float32)
    latent = jax.ShapeDtypeStruct((1, *tokenizer.latent_shape), jnp.float32)
    label = jax.ShapeDtypeStruct((1,), jnp.int32)
    encoder = flops(tokenizer.encoder, image, label)
    decoder = flops(tokenizer.decoder, latent, label)

    unrolled = ["--config.model.unroll=True", "--config.model.compute_dtype=float32"]
    config = load_config("configs/imagenet_sphere_latent.py", unrolled)
    method = build_method(config, "sphere_latent")
    z = jax.ShapeDtypeStruct((1, *method.tokenizer.latent_shape), jnp.float32)
    denoiser = flops(method.network, z, None, label)
    rae = flops(
        Network(lambda rngs: RAEDecoder(rngs=rngs)),
        jax.ShapeDtypeStruct((1, 257, 768), jnp.float32),
    )
    print("published sizes, GFLOP of one evaluation of one image (XLA)")
    for name, value in (("E encoder XL", encoder), ("E decoder XL", decoder),
                        ("B denoiser XL", denoiser), ("RAE decoder", rae)):  # fmt: skip
        print(f"  {name:<14}{value / 1e9:9.0f}")
    for guided in (True, False):
        times = 2 if guided else 1
        ours = times * STEPS * denoiser + rae
        theirs = times * (STEPS * decoder + (STEPS - 1) * encoder)
        print(f"{STEPS} steps, {'guided' if guided else 'no guidance'}: E {theirs / 1e9:,.0f}, "
              f"B {ours / 1e9:,.0f} GFLOP an image: B needs {theirs / ours:.2f} x fewer "
              f"(the paper says {CLAIM} x)")  # fmt: skip


def measured(rounds: int, batch: int) -> None:
    """Images a second of the two small configs, random weights, interleaved.

    "B" has E's width and depth, as XL and XL above; "B, shipped" has the config's own.
    """
    calls, sizes = {}, {}
    small = load_config("configs/mnist_sphere_encoder.py").tokenizer
    equal = [f"--config.model.{key}={getattr(small, key)}" for key in ("width", "depth", "heads")]
    for name, stage, overrides in (
        ("E", "sphere_encoder", []),
        ("B", "sphere_latent", equal),
        ("B, shipped", "sphere_latent", []),
    ):
        config = load_config(f"configs/mnist_{stage}.py", overrides)
        method = build_method(config, stage)
        guided = dataclasses.replace(method.sampler, steps=STEPS, scale=1.5)
        params = _params(method, config)
        sizes[name] = num_parameters(params)

        def generate(params, keys, labels, method=method, guided=guided):
            samples, _ = method.generate(params, keys, labels, jnp.float32(1.5), guided)
            return method.images(params, samples)

        compiled = jax.jit(generate, compiler_options=quick_products())
        inputs = jax.random.split(jax.random.key(0), batch), jnp.arange(batch) % 10
        calls[name] = lambda c=compiled, p=params, i=inputs: jax.block_until_ready(c(p, *i))
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for turn in range(rounds):
        for name in sorted(calls, reverse=bool(turn % 2)):
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    print(f"\nsmall configs, {STEPS} guided steps, {batch} images, {rounds} interleaved rounds, "
          f"{jax.device_count()} x {jax.devices()[0].device_kind}")  # fmt: skip
    for name, seconds in times.items():
        print(f"  {name}: {sizes[name]:,} parameters, "
              f"{1e3 * statistics.median(seconds) / batch:.2f} ms an image")  # fmt: skip
    for name in ("B", "B, shipped"):
        ratios = sorted(e / b for e, b in zip(times["E"], times[name], strict=True))
        low, middle, high = ratios[0], statistics.median(ratios), ratios[-1]
        print(
            f"  {name} is {low:.2f} / {middle:.2f} / {high:.2f} x as fast as E (min / median / max)"
        )


def _params(method, config) -> dict:
    tokenizer = build_tokenizer(config)
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


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--measure", action="store_true")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--batch", type=int, default=64)
    arguments = flags.parse_args()
    published()
    if arguments.measure:
        measured(arguments.rounds, arguments.batch)


if __name__ == "__main__":
    main()
