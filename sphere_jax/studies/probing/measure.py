"""All probes of one tokenizer on one set of images, as numbers an image."""

import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from sphere_jax.data.pipeline import map_batched
from sphere_jax.distribution.mesh import batch_sharding
from sphere_jax.distribution.placement import placed
from sphere_jax.nn.functional import Params
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.sampling.noise import sample_noise
from sphere_jax.studies.probing import paths, perturbation, swap
from sphere_jax.studies.probing.distances import Comparison, Pictures, Scores
from sphere_jax.tokenizers.base import Tokenizer

STREAMS = ("path", "radial", "angular", "direction")  # of noise, independent of each other
SHOWN = 6  # images in a strip


@dataclasses.dataclass
class Probed:
    """The measurements; every array has one row per image, unless stated."""

    latent_shape: tuple[int, int, int]
    shells: dict[str, paths.Shell]  # "data", "noise"
    along: dict[str, dict[str, np.ndarray]]  # kind of path -> "norm", "delta", "share" (N, T)
    swaps: dict[str, dict[str, Scores]]  # decoded -> "a", "b" -> scores of the anchors
    matched: dict[str, dict[float, Scores]]  # "radial", "angular" -> eta -> scores against a
    fixed: dict[str, tuple[float, Scores]]  # name -> norm, scores against a
    turned: dict[float, Scores]  # sigma -> scores against a, and "angle" in degrees
    strips: dict[str, dict[str, np.ndarray]]  # group -> name -> uint8 (SHOWN, H, W, C)


class Probe:
    """A tokenizer with its parameters, and what its images are compared with."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        params: Params,
        compare: Comparison,
        seed: int,
        log: Callable[[str], None],
    ):
        self.latent_shape, self.compare, self.log = tokenizer.latent_shape, compare, log
        key = jax.random.key(seed)
        self._keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(STREAMS)}
        self._params, self._seed = params, seed
        self._noise = jax.jit(lambda key, i: sample_noise(key, i, tokenizer.latent_shape))
        on_mesh = partial(placed, compare.mesh, zero=True, once=True)
        self._encode = jax.jit(on_mesh(lambda params, x: tokenizer.encode(params, to_float(x))))
        self._decode = jax.jit(on_mesh(lambda params, z: to_uint8(tokenizer.decode(params, z))))

    def noise(self, stream: str, indices: jax.Array) -> jax.Array:
        """Of the images at these indices: the same in every batch and for every strength."""
        return self._noise(self._keys[stream], indices)

    def map(self, function: Callable, *arrays: np.ndarray):
        """`function` over aligned host arrays, batch by batch."""
        return map_batched(
            function, arrays, self.compare.batch_size, batch_sharding(self.compare.mesh)
        )

    def decoded(self, name: str, change: Callable, *arrays: np.ndarray) -> np.ndarray:
        """uint8 images of the latents that `change` makes of the arrays; logs a line."""
        started = time.monotonic()
        images = self.map(lambda *batch: self._decode(self._params, change(*batch)), *arrays)
        seconds = max(time.monotonic() - started, 1e-9)
        self.log(f"decoded {name}: {len(images)} images, {len(images) / seconds:.1f} img/s")
        return images

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> Probed:
        """uint8 (N, H, W, C) and labels (N,), of which two at least are equal."""
        z = self.map(lambda x: self._encode(self._params, x), images)
        index = np.arange(len(z), dtype=np.uint32)
        shells = {
            "data": paths.shell(z),
            "noise": paths.shell(self.map(lambda i: self.noise("path", i), index)),
        }
        base = self.compare.with_features(self.decoded("reconstructions", lambda z: z, z))
        strips = {"swap": {}, "matched": {}, "fixed": {}, "turned": {}}
        return Probed(
            self.latent_shape,
            shells,
            self._along(z, index, shells),
            self._swaps(z, labels, images, base, strips["swap"]),
            self._matched(z, index, base, strips["matched"]),
            self._fixed(z, shells["data"], base, strips["fixed"]),
            self._turned(z, index, base, strips["turned"]),
            strips,
        )

    def _along(self, z, index, shells) -> dict[str, dict[str, np.ndarray]]:
        found, d = {}, self.latent_shape[-1]
        for kind, space in paths.spaces(d).items():
            at = paths.ends(kind, shells["data"], shells["noise"], d)

            def walk(z, i, space=space, at=at):
                return paths.along(space, z, self.noise("path", i), at)

            found[kind] = self.map(walk, z, index)
        return found

    def _swaps(self, z, labels, images, base: Pictures, strips) -> dict[str, dict[str, Scores]]:
        a, b = swap.partners(labels, self._seed)
        pairs = {swap.CONTROL: (a, a), swap.RADIUS: (b, a), swap.DIRECTION: (a, b)}
        pictures = {
            name: self.compare.with_features(
                self.decoded(name, swap.recombine, z[radii], z[directions])
            )
            for name, (radii, directions) in pairs.items()
        }
        pictures[swap.WHOLE] = base[b]
        strips["a"] = images[a][:SHOWN]
        strips["D(a)"] = base.images[a][:SHOWN]
        strips["r_b u_a"] = pictures[swap.RADIUS].images[:SHOWN]
        strips["r_a u_b"] = pictures[swap.DIRECTION].images[:SHOWN]
        strips["D(b)"] = base.images[b][:SHOWN]
        return {
            name: {"a": self.compare(found, base[a]), "b": self.compare(found, base[b])}
            for name, found in pictures.items()
        }

    def _matched(self, z, index, base: Pictures, strips) -> dict[str, dict[float, Scores]]:
        changes = {"radial": perturbation.radial_jitter, "angular": perturbation.angular_jitter}
        found = {kind: {} for kind in changes}
        for eta in perturbation.ETAS:
            for kind, jitter in changes.items():

                def change(z, i, jitter=jitter, kind=kind, eta=eta):
                    return jitter(z, self.noise(kind, i), eta)

                images = self.decoded(f"{kind} jitter {eta:g}", change, z, index)
                found[kind][eta] = self.compare(Pictures(images), base)
                if eta in perturbation.ETAS[-3:]:
                    strips[f"{eta:g} {kind}"] = images[:SHOWN]
        return found

    def _fixed(self, z, data: paths.Shell, base: Pictures, strips):
        norms = {f"{m:g} mean": m * data.radius for m in perturbation.MULTIPLES}
        norms["sqrt(d)"] = math.sqrt(self.latent_shape[-1])
        found = {}
        for name, norm in norms.items():

            def change(z, norm=norm):
                return perturbation.fixed_norm(z, norm)

            pictures = self.compare.with_features(self.decoded(f"norm {name}", change, z))
            found[name] = norm, self.compare(pictures, base)
            strips[name] = pictures.images[:SHOWN]
        return found

    def _turned(self, z, index, base: Pictures, strips) -> dict[float, Scores]:
        found = {}
        for sigma in (*perturbation.SIGMAS, perturbation.equal_turn(self.latent_shape[-1])):

            def change(z, i, sigma=sigma):
                return perturbation.direction_noise(z, self.noise("direction", i), sigma)

            images = self.decoded(f"direction noise {sigma:.3g}", change, z, index)
            pictures = self.compare.with_features(images)
            angle = self.map(lambda z, i: perturbation.mean_angle(z, change(z, i)), z, index)
            found[sigma] = self.compare(pictures, base) | {"angle": angle.astype(np.float64)}
            strips[f"{angle.mean():.0f} degrees"] = pictures.images[:SHOWN]
        return found
