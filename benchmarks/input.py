"""Images and latents a second that training reads, against a PyTorch DataLoader on the same files.

    python -m benchmarks.input --threads 1                  # one core, processor time
    python -m benchmarks.input --workers 0 2                # all cores, wall time, processes too

Data made here: a folder of JPEGs, the same JPEGs in ArrayRecord files, images at their final size
as `prepare images` writes them, and float16 latents, in a cache as `prepare latents` writes it and
in one `.npy`. Ours ends with a batch on the device, PyTorch's with a collated tensor. Both shuffle,
flip half of the images (and of the cache) and decode with Pillow. A turn reads `--batches` batches
or more, after as many as may wait ahead; turns are interleaved. For the default it says how many
cores of this speed a TPU host with 8 v5e chips needs where a step reaches 60 % of their peak.
"""

import argparse
import io
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import rounds, smoke
from benchmarks.input_torch import Loader
from benchmarks.rounds import torch
from sphere_jax.cli import run_command
from sphere_jax.config.options import DataOptions
from sphere_jax.data.latent_cache import CacheWriter
from sphere_jax.data.pipeline import Batches, threads_for
from sphere_jax.data.record_files import whole_records
from sphere_jax.data.record_writer import write_images
from sphere_jax.data.source import Source, load
from sphere_jax.data.tf_examples import write_example
from sphere_jax.distribution.mesh import batch_sharding, make_mesh

NEEDED = {"SiT-XL/2": 1330, "SiT-B/2": 6840}  # images/s of a host with 8 chips
CLASSES = 4
SMOKE = ["--examples=20", "--shape", "20", "15", "--size=8", "--latent", "2", "2", "4",
         "--batch=4", "--batches=1", "--rounds=1", "--seconds=0", "--threads=1"]  # fmt: skip


def main(argv: list[str]) -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--examples", type=int, default=320, help="of each kind of data")
    flags.add_argument("--shape", type=int, nargs=2, default=(500, 375), help="of a JPEG, pixels")
    flags.add_argument("--size", type=int, default=256, help="of an image in a batch, pixels")
    flags.add_argument("--latent", type=int, nargs=3, default=(16, 16, 768), help="h, w, d")
    flags.add_argument("--batch", type=int, default=64, help="examples")
    flags.add_argument("--batches", type=int, default=4, help="that a turn reads at least")
    flags.add_argument(
        "--compared", type=int, nargs="*", default=[0], help="threads, besides the default"
    )
    flags.add_argument("--workers", type=int, nargs="*", default=[], help="processes, to compare")
    flags.add_argument("--kinds", nargs="*", help="of data, the first words of their rows")
    rounds.add_flags(flags, rounds=5)
    args = smoke.parse(flags, argv, lambda: SMOKE)
    if args.threads == 1 and any(args.workers):
        flags.error("--workers needs wall time, so not --threads 1")
    clock = rounds.start(args)
    print(f"batches of {args.batch}; min / median / max over {args.rounds} rounds")
    for kind, source in sources(args, smoke.folder()).items():
        if not args.kinds or kind.startswith(tuple(args.kinds)):
            report(kind, args, source, clock)


def report(kind: str, args: argparse.Namespace, source: Source, clock: Callable) -> None:
    """Examples a second of every way to read `source`, and what a TPU host would need."""
    threads = sorted({threads_for(source), *args.compared})
    ways = {f"{n} threads": dict(threads=n) for n in threads}
    ways |= {f"{n} workers": dict(workers=n) for n in args.workers if n}
    turns = {name: lambda way=way: ours(source, args, clock, way) for name, way in ways.items()}
    if torch:
        for n in sorted({0, *args.workers}):
            name = "torch DataLoader" + (f", {n} workers" if n else "")
            turns[name] = lambda n=n: others(source, args, clock, n)
    rates = {name: [] for name in turns}
    for turn in range(args.rounds):
        names = list(turns)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            rates[name].append(turns[name]())
    print(f"\n{kind}")
    default = f"{threads_for(source)} threads"
    for name, found in rates.items():
        line = f"  {name:<28}{rounds.spread(found, '{:,.0f}'):>26} /s"
        if name == default:
            median = statistics.median(found)
            cores = [f"{needed / median:.1f} for {net}" for net, needed in NEEDED.items()]
            line += f"   the default; cores of a v5e host: {', '.join(cores)}"
        elif name.startswith("torch"):
            ratios = [a / b for a, b in zip(rates[default], found, strict=True)]
            line += f"   sphere_jax is {rounds.spread(ratios, '{:.2f}')} x as fast"
        print(line, flush=True)


def ours(source: Source, args: argparse.Namespace, clock: Callable, way: dict) -> float:
    sharding = batch_sharding(make_mesh())
    batches = Batches(source, args.batch, args.seed, sharding, flip=True, **way)
    try:
        ahead = 2 * max(way.values()) + 2  # wait in memory, or are being read
        return _rate(batches, ahead, args, clock)
    finally:
        batches.close()
        while any("grain" in thread.name and thread.is_alive() for thread in threading.enumerate()):
            time.sleep(0.01)  # a batch that is being read would count for the next turn


def others(source: Source, args: argparse.Namespace, clock: Callable, workers: int) -> float:
    """Of a DataLoader with `workers` processes; 0 reads in this one."""
    with Loader(source.source, args.batch, workers, args.seed) as batches:
        return _rate(batches, 2 * workers, args, clock)


def _rate(batches: Iterator, ahead: int, args: argparse.Namespace, clock: Callable) -> float:
    """Examples a second, after the first `ahead` batches and one more; of many batches where many
    are read at once, since some of these are counted that were begun before, and others are not."""
    for batch in itertools.islice(batches, ahead + 1):
        _wait(batch)
    start, count = clock(), 0
    while count < max(args.batches, 2 * ahead) or clock() - start < args.seconds:
        batch = next(batches)
        count += 1
    _wait(batch)
    return count * args.batch / max(clock() - start, 1e-9)


def _wait(batch: dict) -> None:
    for array in batch.values():
        if hasattr(array, "block_until_ready"):
            array.block_until_ready()


def sources(args: argparse.Namespace, root: Path) -> dict[str, Source]:
    """The training parts, by the title of their table."""
    rng = np.random.default_rng(args.seed)
    jpegs = [_jpeg(rng, *args.shape) for _ in range(args.examples)]
    labels, held = np.arange(args.examples, dtype=np.int32) % CLASSES, 2 * CLASSES
    for part, count in (("train", args.examples), ("val", held)):
        for number in range(count):
            folder = root / "folder" / part / str(labels[number])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(jpegs[number])
    (root / "records").mkdir()
    for part, count in (("train", args.examples), ("heldout", held)):
        with whole_records(root / "records" / f"{part}-00000.array_record") as add:
            pairs = zip(jpegs[:count], labels[:count].tolist(), strict=True)
            add(write_example({"image": image, "label": label}) for image, label in pairs)

    def options(source: str, path: Path) -> DataOptions:
        shape = dict(image_size=args.size, channels=3, num_classes=CLASSES)
        return DataOptions(source=source, path=str(path), **shape)

    folder = options("folder", root / "folder")
    write_images(folder, root / "images", 10**6)
    _write_latents(rng, args.latent, labels, root)
    wide, high = args.shape
    size, latent = f"{args.size} px", "x".join(map(str, args.latent))
    titles = {
        f"folder: JPEG {wide}x{high} to {size}": folder,
        f"records: JPEG {wide}x{high} to {size}, ArrayRecord": options(
            "array_record", root / "records"
        ),
        f"prepared: PNG of {size}, ArrayRecord": options("array_record", root / "images"),
        f"cache: latents {latent} float16, ArrayRecord": options("cache", root / "cache"),
        f"latents: {latent} float16, .npy": options("latents", root / "npy"),
    }
    return {title: Many(load(data).train) for title, data in titles.items()}


class Many(Source):
    """A source again and again, as long as ImageNet: grain takes longer to shuffle a few hundred
    than a million."""

    def __init__(self, source: Source):
        super().__init__(source.arrays)
        object.__setattr__(self, "source", source)

    def __len__(self) -> int:
        return 1_281_167

    def stored(self, indices, mirrored=None):
        return self.source.stored(indices % len(self.source), mirrored)


def _jpeg(rng: np.random.Generator, wide: int, high: int) -> bytes:
    """Noise with the spectrum of photographs: it is compressed to about as many bytes as they."""
    down, across = np.fft.fftfreq(high)[:, None], np.fft.rfftfreq(wide)[None]
    spectrum = np.maximum(np.hypot(down, across), 1 / wide) ** -1.1
    phases = np.exp(2j * np.pi * rng.random((4, *spectrum.shape)))
    waves = np.fft.irfft2(spectrum * phases, s=(high, wide))
    waves /= waves.std((1, 2), keepdims=True)
    pixels = 128 + 50 * (waves[:1] + 0.3 * waves[1:])  # the channels have much in common
    content = io.BytesIO()
    pixels = np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels).save(content, "JPEG", quality=90)
    return content.getvalue()


def _write_latents(rng: np.random.Generator, shape: tuple, labels: np.ndarray, root: Path) -> None:
    """The same in a cache and in an `.npy`."""
    plan = {"made_with": {}, "latent_shape": list(shape), "dtype": "float16", "shard_size": 10**6}
    held = labels[: 2 * CLASSES]
    cache = CacheWriter(root / "cache", plan, {"train": labels, "heldout": held})
    cache.write_plan()
    (root / "npy").mkdir()
    for shard in cache.shards:
        latents = rng.standard_normal((len(shard), 2, *shape), np.float32)
        cache.write(shard, [latents])
        prefix = "" if shard.part == "train" else "test_"
        np.save(root / "npy" / f"{prefix}latents.npy", latents[:, 0].astype(np.float16))
        np.save(root / "npy" / f"{prefix}labels.npy", labels[: len(shard)])
    cache.write_index()


if __name__ == "__main__":
    run_command(main)
