"""One SiT after the other against its PyTorch twin: what `train_step` and `sample` share."""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rounds
from sphere_jax.models.sit import SiT
from sphere_jax.nn.functional import Network, Params

CHANNELS, CLASSES = 16, 10
SMOKE = ["--tokens=4", "--width=32", "--depth=1", "--heads=2", "--batch=2", "--rounds=1"]
SMOKE += ["--seconds=0", "--no_compile"]


class Case(NamedTuple):
    """sizes: the positional arguments of the network and of its twin, `module`.`twin` of
    benchmarks/; data: see `random_batch`."""

    sizes: tuple
    network: Network
    params: Params
    data: dict[str, np.ndarray]
    twin: tuple[str, str] = ("torch_sit", "TorchSiT")

    @property
    def batch(self) -> int:
        return len(self.data["labels"])

    @property
    def classes(self) -> int:
        return self.sizes[5]


def flags(description: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256])
    options.add_argument("--width", type=int, default=192)
    options.add_argument("--depth", type=int, default=6)
    options.add_argument("--heads", type=int, help="default: head dimension 64, as all SiT sizes")
    options.add_argument("--batch", type=int, help="default: 2048 tokens a batch")
    options.add_argument("--no_compile", action="store_true", help="leave torch.compile out")
    rounds.add_flags(options, rounds=7)
    return options


def compare(
    args: argparse.Namespace,
    ours: Callable[[Case], Callable[[], None]],
    theirs: Callable[[Case, bool], Callable[[], None]],
    title: str,
    passes: int,
    settle: int = 0,
) -> None:
    """Times `ours(case)` and, if PyTorch is installed, `theirs(case, compiled)`; prints both.

    Args:
      title: with places for tokens, batch, width and depth.
      passes: forward passes that one image is worth, in FLOPs.
      settle: as of `rounds.time_rounds`.
    """
    clock = rounds.start(args)
    peak = rounds.matmul_peak(clock, args.seconds / 5)
    print(f"peak {peak / 1e9:.0f} GFLOP/s")
    for tokens in args.tokens:
        case = make_case(args, tokens)
        contenders = contenders_for(case, ours, theirs, not args.no_compile)
        times = rounds.time_rounds(contenders, args.rounds, clock, args.seconds, settle=settle)
        flops = passes * case.batch * forward_flops(tokens, args.width, args.depth)
        heading = title.format(**vars(args) | {"tokens": tokens, "batch": case.batch})
        rounds.report(heading, times, flops, peak)


def contenders_for(
    case: Case,
    ours: Callable[[Case], Callable[[], None]],
    theirs: Callable[[Case, bool], Callable[[], None]],
    compiled: bool,
) -> dict[str, Callable[[], None]]:
    """By their names; those of PyTorch if it is installed, `compiled` by torch.compile as well."""
    contenders = {"sphere_jax": ours(case)}
    if rounds.torch:
        contenders["torch eager"] = theirs(case, False)
        if compiled:
            rounds.add_compiled(contenders, lambda: theirs(case, True))
    return contenders


def make_case(args: argparse.Namespace, tokens: int) -> Case:
    side = round(tokens**0.5)
    heads = args.heads or max(1, args.width // 64)
    sizes = (side, side, CHANNELS), 1, args.width, args.depth, heads, CLASSES
    network = Network(lambda rngs: SiT(*sizes, unroll=True, rngs=rngs))
    batch = args.batch or max(1, 2048 // tokens)
    data = random_batch(batch, sizes[0], args.seed)
    return Case(sizes, network, random_params(network, args.seed), data)


def random_batch(
    batch: int, shape: tuple[int, int, int], seed: int, classes: int = CLASSES
) -> dict[str, np.ndarray]:
    """Data and noise (B, h, w, d), times and labels (B,); the same arrays for both frameworks."""
    rng = np.random.default_rng(seed)
    return {
        "data": rng.standard_normal((batch, *shape), np.float32),
        "noise": rng.standard_normal((batch, *shape), np.float32),
        "t": rng.random(batch, np.float32),
        "labels": rng.integers(0, classes, batch).astype(np.int32),
    }


def random_params(network: Network, seed: int) -> Params:
    """Initial parameters with noise on every leaf, so that no zero gate spares any work."""
    params = jax.jit(network.init)(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(x + 0.02 * rng.standard_normal(x.shape, np.float32)), params
    )


def forward_flops(tokens: int, width: int, depth: int) -> float:
    """Matmul FLOPs of SiT on one image: block linears, attention, adaLN, patches, time, head."""
    block = tokens * (2 * 12 * width**2 + 4 * tokens * width) + 2 * 6 * width**2
    ends = tokens * 2 * 2 * CHANNELS * width + 2 * (256 + width + 2 * width) * width
    return depth * block + ends
