"""Reconstruction metrics: PSNR and SSIM, and those for which there are weights."""

import dataclasses
import functools

import jax
import numpy as np

from sphere_jax.common.progress import Progress
from sphere_jax.config.options import EvaluationOptions, features_of
from sphere_jax.evaluation.batches import padded_batches
from sphere_jax.evaluation.features.base import Features
from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.pairs import lpips_distances
from sphere_jax.evaluation.preconditions import Images
from sphere_jax.evaluation.reconstruction import WINDOW, psnr, ssim
from sphere_jax.evaluation.statistics import Statistics
from sphere_jax.models.lpips import LPIPS
from sphere_jax.nn.functional import Network, Params
from sphere_jax.weights.layouts import lpips as lpips_weights
from sphere_jax.weights.stored import load_weights

BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Fidelity:
    """PSNR and SSIM of any images; LPIPS-AlexNet and a Frechet distance where weights are given.

    The Frechet distance is that between reconstructions and the very images they are of, in the
    features of `config.evaluation.features`; with Inception it is rFID.
    """

    lpips: Params | None
    features: Features | None

    @classmethod
    def load(cls, options: EvaluationOptions, image_shape: tuple[int, int, int]) -> "Fidelity":
        """With the weights that the options name. Raises UserError for a file that is not one."""
        lpips = features = None
        if options.lpips:
            layouts = lpips_weights.layouts
            lpips = load_weights(options.lpips, "lpips_alexnet", _lpips(), layouts)
            lpips = jax.tree.map(np.asarray, lpips)
        if options.pretrained:
            features = features_of(options).load(options.pretrained, image_shape)
        return cls(lpips, features)

    def scores(
        self, images: Images, reconstructions: Images, of_images: Statistics | None
    ) -> dict[str, float]:
        """Means over uint8 images (N, H, W, C).

        SSIM needs sides of 11 pixels and is else left out. `of_images` are `moments(images)`.
        """
        rows: dict[str, list] = {}
        progress = Progress("compared", len(images))
        for start in range(0, len(images), BATCH):
            progress.done(start)
            pair = images[start : start + BATCH], reconstructions[start : start + BATCH]
            batches = [next(padded_batches(np.asarray(part), BATCH)) for part in pair]
            (x, mask), (y, _) = batches
            found = {"psnr": psnr(x, y)}
            if min(x.shape[1:3]) >= WINDOW:
                found["ssim"] = ssim(x, y)
            if self.lpips is not None:
                found["lpips"] = lpips_distances(_lpips())(self.lpips, x, y)
            for name, values in found.items():
                rows.setdefault(name, []).append(np.asarray(values)[mask])
        means = {name: float(np.concatenate(values).mean()) for name, values in rows.items()}
        if of_images is None:
            return means
        distance = frechet_distance_of(of_images, self.moments(reconstructions))
        return means | {f"frechet_distance_{self.features.name}": distance}

    def moments(self, images: Images) -> Statistics | None:
        """Of the features of uint8 images (N, H, W, C); None without a feature network."""
        if self.features is None:
            return None
        return Statistics.of(self.features.features(images, BATCH))


@functools.cache
def _lpips() -> Network:
    return Network(lambda rngs: LPIPS("alex", rngs=rngs))
