"""A small ViT trained on the data's own labels, for HAE where no pretrained one is given
(docs/systems/hae.md#small-and-from-nothing)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sphere_jax.common.shapes import Images, Keys, OneKey
from sphere_jax.config.checks import check
from sphere_jax.config.option import option
from sphere_jax.config.options import Config, StageOptions
from sphere_jax.data.source import Split
from sphere_jax.losses.augmentation import augment
from sphere_jax.methods.base import Batch, Loss, Method, Outcome, Params, Tools
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.pixels import to_float
from sphere_jax.tokenizers.base import Tokenizer
from sphere_jax.tokenizers.hae import HAE, OWN


@dataclasses.dataclass(frozen=True)
class ViTClassifierOptions(StageOptions):
    """Cross-entropy of the class by the class token and the mean of the patch tokens."""

    method: str = "vit_classifier"
    label_smoothing: float = option(
        0.1, 0.0, 0.9, help="part of the target spread over all classes"
    )
    augment: bool = option(True, help="shifts by up to 1/8 and changes of colour")


@dataclasses.dataclass(frozen=True)
class ViTClassifier(Method):
    """Trains {"vit", "head"}; HAE keeps the ViT and its patch embedding. The mean of the patch
    tokens counts, so that each of them learns what the image shows."""

    tokenizer: HAE
    head: Network
    options: ViTClassifierOptions

    Options = ViTClassifierOptions
    trains_tokenizer = HAE.Options.name
    reads_of_tokenizer = ("name", "vit", *OWN, "compute_dtype")
    trains = ("vit", "head")
    is_transformer = True

    @classmethod
    def title(cls, config: Config) -> str:
        return "ViT classifier"

    @classmethod
    def check(cls, config: Config, name: str) -> None:
        s = config.tokenizer
        check(
            s.vit == s.pretrained_vit == s.pretrained == "",
            f"config.{name} trains a ViT of its own: set config.tokenizer.vit='' and leave "
            "pretrained_vit and pretrained empty, or leave the stage out.",
        )
        check(
            config.data.num_classes > 1,
            f"config.{name} learns from labels: it needs data of 2 classes or more "
            f"(config.data.num_classes={config.data.num_classes}), or give a pretrained ViT.",
        )

    @classmethod
    def build(cls, config: Config, name: str, tokenizer: Tokenizer) -> "ViTClassifier":
        width, classes = 2 * tokenizer.latent_shape[-1], config.data.num_classes
        head = Network(lambda rngs: Linear(width, classes, rngs=rngs))
        return cls(tokenizer, head, config.stage(name))

    def init(self, key: OneKey, frozen: Params) -> Params:
        vit, head = jax.random.split(key)
        return {"vit": self.tokenizer.vit.init(vit), "head": self.head.init(head)}

    def _logits(self, params: Params, images: Images):
        found = self.tokenizer.teacher(params, images)
        both = jnp.concatenate([found.cls, found.patches.mean(1)], axis=-1)
        return self.head.apply(params["head"], both)

    def loss(self, params: Params, frozen: Params, batch: Batch, keys: Keys) -> Loss:
        images = to_float(batch["images"])
        images = augment(images, keys) if self.options.augment else images
        logits = self._logits(params, images)
        truth = optax.smooth_labels(
            jax.nn.one_hot(batch["labels"], logits.shape[-1]), self.options.label_smoothing
        )
        loss = jnp.mean(optax.softmax_cross_entropy(logits, truth))
        return loss, {"accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["labels"])}

    def measure(self, params: Params, frozen: Params, split: Split, tools: Tools) -> Outcome:
        """Held-out accuracy in percent."""

        def classify(p, x):
            return self._logits(p, to_float(x)).argmax(-1)

        heldout = split.heldout
        found = tools.map_over(classify, params, heldout.arrays["images"])
        return Outcome(metrics={"heldout_accuracy": 100 * float(np.mean(found == heldout.labels))})


METHOD = ViTClassifier
