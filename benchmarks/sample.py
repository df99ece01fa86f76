"""Guided sampling with SiT against PyTorch on this machine, in interleaved rounds of one process.

    python -m benchmarks.sample --tokens 16 64 256 --width 192 --depth 6 --batch 16 --rounds 5

50 Euler steps, every one guided (100 network evaluations an image, two to a call), in float32: ours
is the project's own sampler in one compiled program, PyTorch's a loop under inference_mode.
"""

import jax
import jax.numpy as jnp
import torch

from benchmarks import rounds
from benchmarks.torch_sit import TorchSiT, load
from benchmarks.train_step import CHANNELS, CLASSES, network_sizes, random_batch, random_params
from sphere_jax.geometry.spaces import Euclidean
from sphere_jax.models.sit import SiT
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network
from sphere_jax.sampling.guidance import Guidance
from sphere_jax.sampling.sampler import Sampler, nfe, sample

STEPS, SCALE = 50, 1.5
SETTINGS = Sampler(steps=STEPS, guidance=Guidance(SCALE))


def main():
    args = rounds.parser(__doc__.splitlines()[0]).parse_args()
    clock, peak = rounds.start(args)
    for tokens in args.tokens:
        batch = args.batch or max(1, 2048 // tokens)
        sizes = network_sizes(args, tokens)
        data = random_batch(batch, sizes[0], args.seed)
        network = Network(lambda rngs, s=sizes: SiT(*s, unroll=True, rngs=rngs))
        params = random_params(network, args.seed)
        contenders = {
            "sphere_jax": jax_sample(network, params, data),
            "torch eager": torch_sample(sizes, params, data),
        }
        rounds.add_compiled(
            contenders,
            lambda s=sizes, p=params, d=data: torch_sample(s, p, d, compiled=True),
            not args.no_compile,
        )
        times = rounds.time_rounds(contenders, args.rounds, clock)
        title = (
            f"{STEPS} guided steps, {tokens} tokens, {batch} images, {args.width} x {args.depth}"
        )
        evaluations = batch * nfe(SETTINGS)
        flops = evaluations * rounds.forward_flops(tokens, CHANNELS, args.width, args.depth)
        rounds.report(title, times, flops, peak)


def jax_sample(network, params, data):
    def run(params, noise, labels):
        def velocity(z, t, y):
            return network.apply(params, z, t, y)

        return sample(velocity, Euclidean(), noise, labels, CLASSES, SETTINGS)

    run = jax.jit(run, compiler_options=quick_products())
    noise, labels = jnp.asarray(data["noise"]), jnp.asarray(data["labels"])
    return lambda: run(params, noise, labels).block_until_ready()


def torch_sample(sizes, params, data, compiled=False):
    model = load(TorchSiT(*sizes), params).eval()
    network = torch.compile(model) if compiled else model
    noise, labels = torch.from_numpy(data["noise"]), torch.from_numpy(data["labels"]).long()
    times = torch.linspace(1, 0, STEPS + 1)
    both = torch.cat([labels, torch.full_like(labels, CLASSES)])

    @torch.inference_mode()
    def call():
        z = noise
        for start, stop in zip(times[:-1], times[1:], strict=True):
            velocity = network(z.repeat(2, 1, 1, 1), start.expand(len(both)), both)
            conditional, unconditional = velocity.chunk(2)
            z = z + (stop - start) * (unconditional + SCALE * (conditional - unconditional))
        return z

    return call


if __name__ == "__main__":
    main()
