"""What the loop, the sampler command and the report ask of a method, and what they get by default.

All functions are pure functions of arrays. Adding a system means adding a file beside this one, its
options to `options/` and a line to `building.py`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.sampling import sample_keys


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`artifacts` feed later stages, `metrics` the report's tables, `arrays` its figures."""

    artifacts: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Method:
    """One system's objective.

    trains: what its parameters are called among a run's artifacts.
    rates: learning rates of some of them, over the optimizer's.
    clipped_apart: those whose gradient has a norm of its own to be clipped by.
    is_transformer: its loss is matrix products without convolutions.
    preview_columns: how many pictures of a preview stand in a row.
    """

    trains: tuple[str, ...] = ()
    rates: dict[str, float] = {}
    clipped_apart: tuple[str, ...] = ()
    is_transformer = False
    preview_columns = 16

    def frozen(self, artifacts) -> dict:
        """What it takes from earlier stages."""
        return {}

    def load(self) -> dict:
        """Frozen artifacts that come from files, such as perceptual weights. Raises UserError."""
        return {}

    def begin(self) -> dict | None:
        """Parameters to begin from that a file holds, in place of `init`. Raises UserError."""
        return None

    def notes(self) -> list[str]:
        """Sentences for the log before training starts."""
        return []

    def init(self, key: jax.Array, frozen) -> dict:
        """Fresh parameters, a dict with the keys `trains`."""
        raise NotImplementedError

    def source(self, split, frozen, map_over):
        """The Split that its batches come from."""
        return split

    def batch_shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """What one example of a batch holds: shape and dtype by name; images by default."""
        return {"images": (self.tokenizer.image_shape, np.uint8), "labels": ((), np.int32)}

    def fixed_tables(self) -> dict[str, int]:
        """Scalars that published counts of its parts have beyond the parameters here."""
        return {}

    def draws(self, key: jax.Array, size: int):
        """All that a batch of `size` draws: a tree of arrays with one row a sample, so that
        splitting a batch over micro-batches or devices changes no draw. By default one key each.
        """
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(size))

    def loss(self, params, frozen, batch, draws):
        """`scalar, {name: scalar}`."""
        raise NotImplementedError

    def schedule(self, step: jax.Array) -> dict[str, jax.Array]:
        """Scalars that depend on the number of steps before this one, int32 and traced. Where there
        are any, training (and nothing else) gives them to `loss` as `frozen["schedule"]`.
        """
        return {}

    def preview(self, params, frozen, batch, key):
        """uint8 images (N,H,W,C) to look at while it trains, or None."""
        return None

    def finish(self, params, frozen, split, map_over) -> Outcome:
        """What it measured when done."""
        return Outcome()

    def yardsticks(self) -> dict[str, Any]:
        """What `finish` measures with, ready for JSON, as far as it may change between two starts:
        a finished stage is then measured again. Raises UserError.
        """
        return {}


class Generator(Method):
    """A method that also draws samples.

    num_classes: K; label K is the null label.
    sampler: hashable settings with `steps`, `scale` (guidance; 1 is off), `with_scale(scale)`,
      `evaluations` (NFE, counted from the settings), `decode_radius` and a `str` in words.
    has_images: whether `images` can be called here.
    conditional: whether labels count for what is drawn.
    """

    num_classes: int
    has_images = True
    conditional = True
    is_transformer = True
    preview_columns = 8

    def generate(self, params, keys, labels, scale, sampler):
        """`(samples (B, ...), trace)` for typed keys (B,) and labels (B,).

        `scale` may be traced and is read only where the sampler's guidance is on. `trace` holds
        what changed along the way, as arrays (steps + 1,).
        """
        raise NotImplementedError

    def images(self, params, samples, radius=0.0):
        """Samples as uint8 images (B, H, W, C), their tokens brought to `radius` before they are
        decoded; 0 leaves them. It is the sampler's `decode_radius`, and may be traced.
        """
        raise NotImplementedError

    def preview(self, params, frozen, batch, key):
        """Samples of every class (of the first ten), one class a row; always the same noise."""
        if not self.has_images:
            return None
        labels = jnp.repeat(jnp.arange(min(self.num_classes, 10)), self.preview_columns)
        keys = sample_keys(key, jnp.arange(len(labels)))
        samples, _ = self.generate(params, keys, labels, self.sampler.scale, self.sampler)
        return self.images(frozen, samples, self.sampler.decode_radius)

    def drop_labels(self, keys, labels):
        """Labels (B,), the null label for `settings.label_dropout` of them, by keys (B,)."""
        dropped = jax.vmap(jax.random.uniform)(keys) < self.settings.label_dropout
        return jnp.where(dropped, self.num_classes, labels)
