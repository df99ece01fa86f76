"""Shared by methods that train a decoder to give images back, from pixels and LPIPS, and against a
discriminator that learns with it (docs/systems/hae.md#autoencoder-training,
docs/systems/spherical_flow.md#decoder-adaptation)."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from sphere_jax.common.shapes import AnyArray, Images, Keys, Latents, Scalar
from sphere_jax.config.checks import check
from sphere_jax.config.options import Config, EvaluationOptions, StageOptions
from sphere_jax.losses.adversarial import balanced, decoder_hinge, discriminator_hinge
from sphere_jax.losses.perceptual import Perceptual, perceptual_files, perceptual_loss
from sphere_jax.losses.pixel import pixel_loss
from sphere_jax.methods.base import Batch, Loss, Method, Params
from sphere_jax.models.dino_disc import released_dino_discriminator
from sphere_jax.models.discriminator import (
    DINO_KIND,
    Discriminator,
    dino_discriminator,
    patch_discriminator,
)
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.weights.layouts import dino as dino_weights
from sphere_jax.weights.stored import WeightsFile

Logits = Float[AnyArray, "batch ..."]

SHOWN = 10  # held-out images in the report


class DecoderTraining(Method):
    """A subclass is a frozen dataclass with these fields; `name` is its stage's. Its options have
    `l1_weight`, `lpips`, `lpips_weight`, `adversarial_weight`, `adversarial_from`,
    `discriminator`, `discriminator_rate`, `dino` and `measured`.

    learns: the parts of the tokenizer that it trains, the decoder among them.
    adaptive: whether the adversarial term is weighted by gradients in the decoder's last layer.
    adaptive_eps: `eps` of that weight (`losses.adversarial.adaptive_weight`).
    """

    name: str
    tokenizer: Tokenizer
    options: StageOptions
    perceptual: Perceptual
    discriminator: Discriminator | None
    evaluation: EvaluationOptions

    measures_fidelity = True
    learns: tuple[str, ...] = ("decoder",)
    adaptive: bool = True
    adaptive_eps: float = 1e-4

    @classmethod
    def build(
        cls, config: Config, name: str, tokenizer: Tokenizer, **more: Any
    ) -> "DecoderTraining":
        """With `more` fields of a subclass."""
        options, channels = config.stage(name), config.data.channels
        return cls(
            name=name,
            tokenizer=tokenizer,
            options=options,
            perceptual=perceptual_loss(bool(options.lpips), False),
            discriminator=cls.opponent(options, channels) if options.adversarial_weight else None,
            evaluation=config.evaluation,
            **more,
        )

    @classmethod
    def opponent(cls, options: StageOptions, channels: int) -> Discriminator:
        """The discriminator that the options name, for images of so many channels."""
        raise NotImplementedError

    @property
    def trains(self) -> tuple[str, ...]:
        return self.learns if self.discriminator is None else (*self.learns, "discriminator")

    @property
    def rates(self) -> dict[str, float]:
        rate = self.options.discriminator_rate
        return {} if self.discriminator is None else {"discriminator": rate}

    @property
    def clipped_apart(self) -> tuple[str, ...]:
        return () if self.discriminator is None else ("discriminator",)

    def files(self) -> dict[str, Any]:
        s, found = self.options, {}
        if self.perceptual.active:
            found["perceptual"] = perceptual_files(self.perceptual, s.lpips, "")
        if self.discriminator is not None and self.discriminator.backbone is not None:
            network, option = self.discriminator.backbone, f"config.{self.name}.dino"
            layouts = dino_weights.layouts
            found["dino"] = WeightsFile(s.dino, DINO_KIND, network, layouts, option)
        return found

    def frozen(self, artifacts: Params) -> Params:
        names = (*self.tokenizer.parts, "perceptual", "dino")
        return {name: artifacts[name] for name in names if name in artifacts}

    def left_out(self) -> list[str]:
        """Sentences for the log: networks without which it trains and is measured."""
        notes = []
        if not self.perceptual.active:
            notes.append("No LPIPS in it: the stage's option lpips is empty.")
        if not self.evaluation.pretrained:
            notes.append("No Fréchet distance at the end: config.evaluation.pretrained is empty.")
        return notes

    def made_by_frozen(self, frozen: Params, batch: Batch) -> Latents | None:
        if set(self.tokenizer.encoder_parts) & set(self.learns):
            return None
        return self.tokenizer.encode(frozen, to_float(batch["images"]))

    def measured_with(self) -> dict[str, Any]:
        return {"images": self.options.measured}

    def schedule(self, step: Int[AnyArray, ""]) -> dict[str, Scalar]:
        """Whether the discriminator is in the decoder's loss: 0 or 1."""
        if self.discriminator is None:
            return {}
        return {"adversarial": (step >= self.options.adversarial_from).astype(jnp.float32)}

    def advance(self, params: Params) -> Params:
        if self.discriminator is None:
            return params
        return params | {"discriminator": self.discriminator.advance(params["discriminator"])}

    def image_loss(
        self, frozen: Params, decoded: Images, target: Images, l2_weight: float = 0.0
    ) -> Loss:
        """L1, L2 and LPIPS of decoded images (B, H, W, C) against their target."""
        s = self.options
        total = pixel_loss(decoded, target, s.l1_weight, l2_weight)
        parts = {"pixel": total}
        if self.perceptual.active:
            parts["lpips"] = self.perceptual(frozen["perceptual"], decoded, target)
            total += s.lpips_weight * parts["lpips"]
        return total, parts

    def adversarial_loss(
        self,
        params: Params,
        frozen: Params,
        network: Callable[[Params], tuple],
        reconstruction: Callable[[tuple], Loss],
        real: Images,
        views: Sequence[Keys | None] = (None, None, None),
    ) -> Loss:
        """Of both players: `reconstruction + adversarial_weight * w * -mean D(decoded)` for what it
        `learns`, and the hinge loss of the discriminator, by the schedule among the frozen.

        w is 1 or, if `adaptive`, the ratio of gradients over the batch or micro-batch: accumulation
        is exact for everything but that w.

        Args:
          network: of the parameters of what it `learns`; the first of its outputs are the images.
          reconstruction: of these outputs.
          real: what the discriminator tells from decoded images, (B, H, W, C).
          views: keys (B,) for `logits` of what the decoder is judged by, of the real images, and of
            the decoded ones that the discriminator learns from.
        """
        schedule = frozen["schedule"]
        learned = {name: params[name] for name in self.learns}
        fixed = jax.lax.stop_gradient(params["discriminator"])
        scale = self.options.adversarial_weight * schedule["adversarial"]

        def adversarial(output):
            return decoder_hinge(self.logits(fixed, frozen, output[0], views[0]))

        if self.adaptive:
            last, eps = self._last_kernels, self.adaptive_eps
            found = balanced(network, learned, reconstruction, adversarial, last, scale, eps)
            loss, decoded, parts = found.loss, found.output[0], found.parts
            parts |= {"adversarial": found.adversarial, "adaptive_weight": found.weight}
        else:
            output = network(learned)
            loss, parts = reconstruction(output)
            parts["adversarial"] = adversarial(output)
            loss += scale * parts["adversarial"]
            decoded = jax.lax.stop_gradient(output[0])

        pairs = ((real, views[1]), (self.as_seen(decoded), views[2]))
        real, fake = (self.logits(params["discriminator"], frozen, *pair) for pair in pairs)
        parts["discriminator"] = discriminator_hinge(real, fake)
        parts |= {"logit_real": jnp.mean(real), "logit_decoded": jnp.mean(fake)}
        return loss + schedule.get("discriminator", 1.0) * parts["discriminator"], parts

    def as_seen(self, images: Images) -> Images:
        """The images (B, H, W, C) that a discriminator learns from: 8-bit values for one on DINO
        (docs/systems/hae.md#dino-disc)."""
        if self.discriminator.backbone is None:
            return images
        return to_float(to_uint8(images))

    def logits(
        self, params: Params, frozen: Params, images: Images, keys: Keys | None = None
    ) -> Logits:
        """Logits (B, ...) of images (B, H, W, C), by parameters of the discriminator. A subclass
        may draw views of the images by the keys (B,)."""
        return self.discriminator.logits(params, frozen.get("dino"), images)

    def _last_kernels(self, gradient) -> list:
        """Kernels of the decoder's last layer, of a gradient of what it learns."""
        layer = gradient["decoder"][self.tokenizer.last_layer]
        leaves = jax.tree_util.tree_leaves_with_path(layer)
        return [leaf for path, leaf in leaves if path[-1].key == "kernel"]


def check_losses(config: Config, name: str, adaptive: bool) -> None:
    """Raises UserError for options of stage `name` that all of these methods refuse; `adaptive` as
    in `DecoderTraining`."""
    stage, where = config.stage(name), f"config.{name}"
    check(
        stage.lpips == "" or stage.lpips_weight > 0,
        f"{where}.lpips_weight=0 leaves {where}.lpips out: set one of both.",
    )
    adversarial = stage.adversarial_weight > 0
    check(
        stage.most_per_device == 0 or not (adversarial and adaptive),
        f"{where}.most_per_device would let the number of devices decide what the adaptive weight "
        "of the discriminator balances, which is a micro-batch: set accumulate instead.",
    )
    smallest = 32 if adversarial else 16 if stage.lpips else 0  # sides that networks take
    check(
        config.data.image_size >= smallest,
        f"config.data.image_size={config.data.image_size} is too small for the losses of "
        f"{where}: at least {smallest} pixels.",
    )


@cache
def make_discriminator(
    kind: str, channels: int, width: int = 64, norm_group: int = 1
) -> Discriminator:
    """The discriminator of a name; `width` is of the first maps of the two patch ones, and
    `norm_group` samples share statistics in "dino_released" and "patch_batch_norm"."""
    patches = partial(patch_discriminator, channels, width)
    return {
        "dino_released": partial(released_dino_discriminator, norm_group),
        "dino": dino_discriminator,
        "patch_batch_norm": partial(patches, group=norm_group),
        "patch": patches,
    }[kind]()
