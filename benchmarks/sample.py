"""Guided sampling with SiT against PyTorch on this machine, in interleaved rounds of one process.

    python -m benchmarks.sample --tokens 16 64 256 --width 192 --depth 6 --batch 16 --rounds 5

50 Euler steps, every one guided (100 network evaluations an image, two to a call), in float32: ours
is the sampler of every run in one compiled program; PyTorch, if it is installed, runs a loop under
inference_mode.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from benchmarks import sit_cases, smoke
from benchmarks.sit_cases import Case
from sphere_jax.cli import run_command
from sphere_jax.geometry.spaces import Euclidean
from sphere_jax.nn.compilation import quick_products
from sphere_jax.sampling import Guidance, Sampler, sample

if TYPE_CHECKING:
    from benchmarks.torch_way import TorchWay

SCALE = 1.5


def main(argv: list[str]) -> None:
    flags = sit_cases.flags(__doc__.splitlines()[0])
    flags.add_argument("--steps", type=int, default=50, help="of Euler (default 50)")
    args = smoke.parse(flags, argv, lambda: [*sit_cases.SMOKE, "--steps=2"])
    sampler = Sampler(steps=args.steps, guidance=Guidance(SCALE))
    sit_cases.compare(
        args,
        lambda case: jax_sample(case, sampler),
        lambda case, compiled: torch_sample(case, args.steps, compiled),
        "{steps} guided steps, {tokens} tokens, {batch} images, {width} x {depth}",
        passes=sampler.evaluations,
    )


def jax_sample(case: Case, sampler: Sampler):
    def run(params, noise, labels):
        def velocity(z, t, y):
            return case.network.apply(params, z, t, y)

        return sample(velocity, Euclidean(), noise, labels, case.classes, sampler)

    run = jax.jit(run, compiler_options=quick_products())
    noise, labels = jnp.asarray(case.data["noise"]), jnp.asarray(case.data["labels"])
    return lambda: run(case.params, noise, labels).block_until_ready()


def torch_sample(case: Case, steps: int, compiled: bool, how: "TorchWay | None" = None):
    """`how` is where and in which precision PyTorch runs."""
    import torch

    from benchmarks.torch_way import TorchWay

    how = how or TorchWay()
    network, _, batch = how.prepare(case, compiled, sampling=True)
    noise, labels = batch["noise"], batch["labels"].long()
    times = torch.linspace(1, 0, steps + 1, device=how.device)
    both = torch.cat([labels, torch.full_like(labels, case.classes)])

    @torch.inference_mode()
    def call():
        z = noise
        with how.precision():
            for start, stop in zip(times[:-1], times[1:], strict=True):
                velocity = network(z.repeat(2, 1, 1, 1), start.expand(len(both)), both)
                conditional, unconditional = velocity.float().chunk(2)
                z = z + (stop - start) * (unconditional + SCALE * (conditional - unconditional))
        how.wait()
        return z

    return call


if __name__ == "__main__":
    run_command(main)
