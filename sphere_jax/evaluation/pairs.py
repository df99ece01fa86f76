"""Reconstruction metrics of pairs, an image and what was made of it: any sizes, memory flat.

PSNR, SSIM and MS-SSIM in their two forms (`evaluation.reconstruction`), and LPIPS on AlexNet and
VGG-16. Each is one number a pair; what is reported is their mean. rFID compares two sets, not
pairs: it is FID of the same images (`evaluation.measures`).
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.common.progress import Progress
from sphere_jax.distribution.mesh import batch_sharding, make_mesh
from sphere_jax.evaluation.pairing import Pairing
from sphere_jax.evaluation.read_ahead import ahead
from sphere_jax.evaluation.reconstruction import SMALLEST, WINDOW, ms_ssim, psnr, ssim
from sphere_jax.nn.compilation import quick_products
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.precision import exact_products
from sphere_jax.weights.stored import fingerprint_of, load_weights

BATCH = 32
HELD = 4 * BATCH  # pairs in memory that wait for others of their size
LPIPS = {"lpips_alex": "lpips_alexnet", "lpips_vgg": "lpips_vgg16"}  # networks in the catalogue
LEAST = {"ssim": WINDOW, "ssim_reflected": WINDOW, "ms_ssim": SMALLEST,
         "ms_ssim_reflected": SMALLEST}  # fmt: skip
OF_PIXELS: dict[str, Callable] = {
    "psnr": psnr,
    "ssim": ssim,
    "ssim_reflected": functools.partial(ssim, border="reflected"),
    "ms_ssim": ms_ssim,
    "ms_ssim_reflected": functools.partial(ms_ssim, border="reflected"),
}
METRICS = (*OF_PIXELS, *LPIPS)
Pixels = UInt8[np.ndarray, "h w c"]


@runtime_checkable
class Readable(Protocol):
    """Images of any sizes, read by number from several threads: uint8 (h, w, 1 or 3)."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> Pixels: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayImages:
    """uint8 (N, H, W, 1 or 3) as `Readable`."""

    array: UInt8[np.ndarray, "n h w c"]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, row: int) -> Pixels:
        return self.array[row]


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """One number a pair for each metric, in the order of the pairs, float32 (N,); networks: name
    and fingerprint of those of LPIPS."""

    values: dict[str, Float32[np.ndarray, " n"]]
    networks: dict[str, str]

    @property
    def means(self) -> dict[str, float]:
        """Over pairs, in float64."""
        return {name: float(found.mean(dtype=np.float64)) for name, found in self.values.items()}

    @property
    def errors(self) -> dict[str, float]:
        """Standard errors of the means; 0 of a single pair."""
        return {
            name: float(found.std(dtype=np.float64, ddof=1) / len(found) ** 0.5)
            if len(found) > 1
            else 0.0
            for name, found in self.values.items()
        }


def compare_pairs(
    samples: Readable,
    reference: Readable,
    pairing: Pairing,
    metrics: Sequence[str] = ("psnr", "ssim"),
    weights: Mapping[str, str | os.PathLike] | None = None,
) -> Compared:
    """Metrics of every pair, on all devices of this process; several processes share the pairs, and
    each gets all values. A value depends neither on the batch nor on the number of devices.

    Pairs of one size are computed together, and there is one compilation a size.

    Args:
      metrics: of `METRICS`.
      weights: files of `lpips_alex` and `lpips_vgg`, by these names.

    Raises:
      UserError: an unknown metric, LPIPS without weights, images of a pair that differ in size or
        are too small for a metric.
    """
    measures = {name: _measure(name, weights or {}) for name in metrics}
    least = {name: measure.least for name, measure in measures.items()}
    share = np.arange(jax.process_index(), len(pairing), jax.process_count())
    found = {name: np.zeros(len(pairing), np.float32) for name in metrics}
    for rows, x, y in _batches(samples, reference, pairing, share, least):
        for name, measure in measures.items():
            found[name][rows] = np.asarray(measure.of(x, y))[: len(rows)]
    networks = {name: measure.network for name, measure in measures.items() if measure.network}
    return Compared({name: _from_all(values) for name, values in found.items()}, networks)


@dataclasses.dataclass(frozen=True)
class _Measure:
    """of: uint8 batches, twice, to one number a pair. least: pixels a side. network: in words."""

    of: Callable[[jax.Array, jax.Array], Float32[jax.Array, " b"]]
    least: int
    network: str = ""


def _measure(name: str, weights: Mapping[str, str | os.PathLike]) -> _Measure:
    if name in OF_PIXELS:
        return _Measure(OF_PIXELS[name], LEAST.get(name, 1))
    if name not in LPIPS:
        raise UserError(f"'{name}' is no metric of pairs; {plugins.nearest(name, METRICS)}")
    if name not in weights:
        raise UserError(
            f"{name} needs weights, which python -m sphere_jax.convert --network {LPIPS[name]} "
            "--out F.safetensors writes."
        )
    from sphere_jax.weights.catalogue import catalogue  # all models: seconds

    entry, path = catalogue()[LPIPS[name]], weights[name]
    network = entry.network()
    params = load_weights(path, LPIPS[name], network, entry.layouts)
    of = functools.partial(lpips_distances(network), jax.tree.map(jnp.asarray, params))
    words = f"{LPIPS[name]}, weights {fingerprint_of(path)}"
    return _Measure(of, network.module.trunk.smallest_side, words)


@functools.cache  # compiled once
def lpips_distances(network: Network) -> Callable:
    """`(params, images, images) -> distances (B,)` of an LPIPS network, for uint8 images."""

    def rgb(images):
        images = images.astype(jnp.float32) / 127.5 - 1
        return jnp.broadcast_to(images, (*images.shape[:-1], 3))

    def distances(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        with exact_products():
            return network.apply(params, rgb(x), rgb(y))

    return jax.jit(distances, compiler_options=quick_products())


def _batches(
    samples: Readable,
    reference: Readable,
    pairing: Pairing,
    share: np.ndarray,
    least: Mapping[str, int],
) -> Iterator[tuple[np.ndarray, jax.Array, jax.Array]]:
    """Batches of pairs of one size, filled up with repeats, on the devices: the numbers of their
    pairs, reference images and samples."""
    sharding = batch_sharding(make_mesh(devices=jax.local_devices()))
    size = -(-BATCH // jax.local_device_count()) * jax.local_device_count()
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray, np.ndarray]]] = {}
    progress = Progress("compared", len(share)) if len(share) else None

    def placed(group):
        rows = np.array([row for row, _, _ in group])
        fill = [group[0]] * (size - len(group))
        sides = zip(*((x, y) for _, x, y in [*group, *fill]), strict=True)
        return rows, *(jax.device_put(np.stack(side), sharding) for side in sides)

    def read(row: int):
        x = reference.read(int(pairing.reference[row]))
        y = samples.read(int(pairing.samples[row]))
        _check(x, y, row, pairing, least)
        return row, x, y

    tasks = (functools.partial(read, row) for row in share.tolist())
    for done, future in enumerate(ahead(tasks, 2 * BATCH)):
        pair = future.result()
        if progress:
            progress.done(done)
        group = waiting.setdefault(pair[1].shape, [])
        group.append(pair)
        if len(group) == size:
            yield placed(waiting.pop(pair[1].shape))
        elif sum(map(len, waiting.values())) > max(HELD, size):
            yield placed(waiting.pop(max(waiting, key=lambda shape: len(waiting[shape]))))
    for group in waiting.values():
        yield placed(group)


def _check(x, y, row: int, pairing: Pairing, least: Mapping[str, int]) -> None:
    """Raises UserError for a pair that cannot be compared."""
    name = f"Pair {row}" if pairing.names is None else f"The pair '{pairing.names[row]}'"
    if x.shape != y.shape:
        raise UserError(
            f"{name} has a reference of {_size(x)} and a sample of {_size(y)}; bring the reference "
            "to the size of the samples, as it was before it was reconstructed."
        )
    for metric, side in least.items():
        if min(x.shape[:2]) < side:
            raise UserError(
                f"{name} has {_size(x)}, and {metric} needs sides of at least {side} pixels; leave "
                "it out of the metrics."
            )


def _size(image: np.ndarray) -> str:
    height, width, channels = image.shape
    return f"{height}x{width} pixels {'in RGB' if channels == 3 else 'in grey'}"


def _from_all(values: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """Every process has some of the values, and zeros."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values)).sum(0)
