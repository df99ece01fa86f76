"""Training and sampling of `benchmarks.accelerator` against PyTorch, in bfloat16."""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rounds
from benchmarks.accelerator_device import in_rounds, peak, torch_device
from benchmarks.sample import SCALE, jax_sample, torch_sample
from benchmarks.sit_cases import Case, random_batch
from benchmarks.timed import noted
from benchmarks.train_step import GivenFlow, jax_step, torch_step
from sphere_jax.common import plugins
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.nn.remat import Remat
from sphere_jax.sampling import Guidance, Sampler
from sphere_jax.training.flops import matmul_flops, training_flops

STARTING = 0.7  # of a part's time: later no contender is compiled


@dataclasses.dataclass(frozen=True)
class Kind:
    """A published network at 256 tokens: in `models/`, its twin, and batches of images that fit an
    80 GB card beside PyTorch's. whole: torch.compile takes it whole, not block by block, and our
    blocks are also run unrolled."""

    title: str
    network: str
    size: str
    patch: int
    latents: tuple[int, int, int]
    twin: tuple[str, str]
    batch: dict[str, int]
    whole: bool = False


KINDS = {
    "sit_b": Kind(
        "SiT-B/2", "sit", "B", 2, (32, 32, 4), ("torch_sit", "TorchSiT"),
        {"train": 128, "sample": 64}, whole=True,
    ),
    "sit_xl": Kind(
        "SiT-XL/2", "sit", "XL", 2, (32, 32, 4), ("torch_sit", "TorchSiT"),
        {"train": 32, "sample": 16},
    ),
    "lightning_xl": Kind(
        "LightningDiT-XL/1", "lightning_dit", "XL", 1, (16, 16, 32),
        ("torch_lightning", "TorchLightningDiT"), {"train": 32, "sample": 16},
    ),
}  # fmt: skip


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--network_sizes", nargs="+", default=[], help="width=32 ...: not published")
    flags.add_argument("--latent_side", type=int, help="of the networks; default: as published")
    flags.add_argument("--classes", type=int, default=1000)
    flags.add_argument("--remat", choices=get_args(Remat), default="products")


def part(work: str, kind: str) -> Callable[[argparse.Namespace, float, dict], None]:
    """The part that does this `work` ("train", "sample") with a network of `KINDS`."""
    return lambda args, deadline, found: _compare(work, KINDS[kind], args, deadline, found)


def _compare(
    work: str, kind: Kind, args: argparse.Namespace, deadline: float, found: dict[str, Any]
) -> None:
    case = make_case(kind, args, args.batch or kind.batch[work])
    where = torch_device()
    makers: dict[str, Callable] = {
        "sphere_jax": lambda: ours(work, case, args)
    }  # what counts first
    if where and not args.no_compile:
        makers["torch.compile"] = lambda: _theirs(work, case, args, where, not kind.whole)
    if kind.whole:
        unrolled = case._replace(network=_network(kind, args, unroll=True))
        makers["sphere_jax, unrolled"] = lambda: ours(work, unrolled, args)
    if where and kind.whole:
        makers["torch eager"] = lambda: _theirs(work, case, args, where, None)
    contenders = {}
    starts, failed = found.setdefault("first_call_s", {}), found.setdefault("failed", {})
    begun = time.monotonic()
    for name, make in makers.items():
        if time.monotonic() > begun + STARTING * (deadline - begun):
            failed[name] = "not started: the others took its time"
            print(f"  {name} was {failed[name]}", flush=True)
            continue
        with noted(failed, name):
            at = time.monotonic()
            call = make()
            call()
            contenders[name], starts[name] = call, time.monotonic() - at
            print(f"  {name} compiled and ran in {starts[name]:.1f} s", flush=True)
    times = in_rounds(contenders, args, deadline, found)
    flops, images = _work(work, case, args)
    title = f"{kind.title}, {work}, batch {case.batch}, {num_parameters(case.params):,} parameters"
    found |= report(title, times, flops, images)


def make_case(kind: Kind, args: argparse.Namespace, batch: int, dtype: str = "bfloat16") -> Case:
    """With noise on every parameter, so that no zero gate spares any work."""
    network, key = _network(kind, args, dtype=dtype), jax.random.key(args.seed)

    def draw(key):
        params = network.init(key)
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        noise = [0.02 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])

    module, latents = network.module, _latents(kind, args)
    heads = module.blocks.layers.attention.heads
    sizes = latents, kind.patch, module.width, module.depth, heads, args.classes
    data = random_batch(batch, latents, args.seed, args.classes)
    return Case(
        sizes, network, jax.jit(draw, compiler_options=run_once_options())(key), data, kind.twin
    )


def _network(
    kind: Kind, args: argparse.Namespace, unroll: bool = False, dtype: str = "bfloat16"
) -> Network:
    found = plugins.find("models", "NETWORK", kind.network, "the network")
    sizes = {key: int(value) for key, _, value in (s.partition("=") for s in args.network_sizes)}
    sizes = sizes or {"size": kind.size}
    running = dict(compute_dtype=dtype, unroll=unroll, remat=args.remat)
    options = found.Options(patch=kind.patch, **running, **sizes)
    return found.build(options, _latents(kind, args), args.classes)


def _latents(kind: Kind, args: argparse.Namespace) -> tuple[int, int, int]:
    side = kind.patch * args.latent_side if args.latent_side else kind.latents[0]
    return side, side, kind.latents[2]


def _sampler(args: argparse.Namespace) -> Sampler:
    return Sampler(steps=args.steps, guidance=Guidance(SCALE))


def ours(work: str, case: Case, args: argparse.Namespace) -> Callable[[], Any]:
    """A call that trains `args.repeats` steps, or samples `args.steps`."""
    if work == "train":
        return jax_step(case, args.repeats)
    return jax_sample(case, _sampler(args))


def _theirs(work: str, case: Case, args: argparse.Namespace, where: str, by_block: bool | None):
    """`by_block` None: not compiled."""
    from benchmarks.torch_way import TorchWay

    how, compiled = TorchWay(where, half=True, by_block=bool(by_block)), by_block is not None
    if work == "train":
        return torch_step(case, compiled, how, args.repeats)
    return torch_sample(case, args.steps, compiled, how)


def _work(work: str, case: Case, args: argparse.Namespace) -> tuple[float, int]:
    """FLOPs and images of one call."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (case.params, case.data)
    )
    params, data = shapes
    if work == "train":
        loss = GivenFlow(case).loss
        flops = training_flops(lambda p: loss({"network": p}, {}, data_of(data), None)[0], params)
        return flops * args.repeats, case.batch * args.repeats
    forward = matmul_flops(case.network.apply, params, data["data"], data["t"], data["labels"])
    return forward * _sampler(args).evaluations, case.batch


def data_of(shapes: dict) -> dict[str, jax.Array]:
    """Zeros, inside of a trace."""
    return {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}


def report(
    title: str, times: dict, flops: float, images: int, unrated: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Prints rows; returns them for JSON. unrated: contenders whose products are not in bfloat16,
    so that they have no share of its peak."""
    kind, first = jax.devices()[0].device_kind, next(iter(times), "")
    print(f"{title}: {flops / images / 1e9:.1f} GFLOP an image")
    found = {"title": title, "flops_per_image": flops / images, "images_per_call": images}
    rows = found["rows"] = {}
    for name, seconds in times.items():
        median, top = statistics.median(seconds), None if name in unrated else peak(kind)
        row = rows[name] = {"images_per_s": images / median, "flops_per_s": flops / median}
        row["share_of_peak"] = flops / median / top if top else None
        # Of the rounds that both have had: the lists begin with the same one.
        ratios = [other / own for own, other in zip(times[first], seconds, strict=False)]
        row[f"times_of_{first}"] = float(np.median(ratios))
        share = f", {row['share_of_peak']:.1%} of peak" if top else ""
        print(
            f"  {name:<22}{row['images_per_s']:>10.1f} images/s"
            f"{flops / median / 1e12:>9.3g} TFLOP/s{share}"
            + ("" if name == first else f"   {first}: {rounds.spread(ratios, '{:.2f}')} x as fast"),
            flush=True,
        )
    return found
