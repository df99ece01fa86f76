"""The DINO discriminator of StyleGAN-T, RAE and HAE, as RAE released it (arXiv 2601.22904, Tables 9
and 10; docs/systems/hae.md#dino-disc).

`models/discriminator.py` has a variant without state and without statistics over places.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from sphere_jax.models.dino import KINDS
from sphere_jax.models.discriminator import (
    DINO_KIND,
    PLACES,
    SLOPE,
    TAPS,
    Discriminator,
    frozen_dino,
)
from sphere_jax.nn.functional import Network, Params
from sphere_jax.nn.linear import small_normal
from sphere_jax.nn.local_norm import LocalBatchNorm

EPS = 1e-12  # of the power iteration


def released_dino_discriminator(group: int = 1) -> Discriminator:
    """Five heads on the blocks of a frozen DINO ViT-S/8 at 224 pixels.

    `group` samples share the statistics of a norm: 1 in RAE, 8 in StyleGAN-T. That DINO has the
    tanh approximation of GELU, as RAE's code has, and not the exact one that it was trained with.
    """
    kind = KINDS[DINO_KIND]
    return Discriminator(
        Network(lambda rngs: Heads(kind["width"], len(TAPS), group, rngs=rngs)),
        frozen_dino(exact_gelu=False),
        advance=advance,
    )


class Heads(nnx.Module):
    """One `Head` for each of the maps (B, N, width): logits (B, maps, N)."""

    def __init__(self, width: int, maps: int, group: int, *, rngs: nnx.Rngs):
        self.heads = nnx.List([Head(width, group, rngs=rngs) for _ in range(maps)])

    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        return jnp.stack([head(x) for head, x in zip(self.heads, maps, strict=True)], axis=1)


class Head(nnx.Module):
    """Tokens (B, N, width) to a logit each, (B, N): convolutions along their raster, circular."""

    def __init__(self, width: int, group: int, *, rngs: nnx.Rngs):
        self.first = PowerConv((1, width, width), rngs=rngs)
        self.second = PowerConv((PLACES, width, width), rngs=rngs)
        self.last = PowerConv((1, width, 1), rngs=rngs)
        self.norms = nnx.List([LocalBatchNorm(width, group=group) for _ in range(2)])

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nnx.leaky_relu(self.norms[0](self.first(tokens)), SLOPE)
        y = nnx.leaky_relu(self.norms[1](self.second(x)), SLOPE)
        return self.last((x + y) / math.sqrt(2))[..., 0]


class PowerConv(nnx.Module):
    """Circular convolution (B, N, inputs) -> (B, N, outputs) of a kernel over its spectral norm.

    `left` (outputs,) and `right` (inputs x size,) are about the singular vectors of the largest
    singular value. No gradient reaches them: `advance` moves them, once a step.
    """

    def __init__(self, shape: tuple[int, int, int], *, rngs: nnx.Rngs):
        size, inputs, outputs = shape
        bound = (size * inputs) ** -0.5  # PyTorch's initialisation of a convolution
        uniform = nnx.initializers.uniform(2 * bound)
        self.kernel = nnx.Param(uniform(rngs.params(), shape, jnp.float32) - bound)
        self.bias = nnx.Param(uniform(rngs.params(), (outputs,), jnp.float32) - bound)
        start = small_normal(rngs.params(), (outputs,), jnp.float32)
        left, right = power_iteration(self.kernel[...], _unit(start))
        self.left, self.right = nnx.Param(left), nnx.Param(right)

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, half = self.kernel[...], self.kernel.shape[0] // 2
        left, right = jax.lax.stop_gradient((self.left[...], self.right[...]))
        kernel = kernel / (left @ _matrix(kernel) @ right)
        x = jnp.concatenate([x[:, x.shape[1] - half :], x, x[:, :half]], axis=1)
        y = jax.lax.conv_general_dilated(
            x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return y + self.bias[...].reshape(1, 1, -1)


def advance(params: Params) -> Params:
    """Parameters of `Heads` with every pair of vectors one power iteration further."""
    if not isinstance(params, dict):
        return params
    if not {"kernel", "left", "right"} <= params.keys():
        return {name: advance(tree) for name, tree in params.items()}
    left, right = power_iteration(params["kernel"], params["left"])
    return params | {"left": left, "right": right}


def power_iteration(kernel: jax.Array, left: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next left and right vectors of a kernel (size, inputs, outputs)."""
    matrix = _matrix(kernel)
    right = _unit(left @ matrix)
    return _unit(matrix @ right), right


def _matrix(kernel: jax.Array) -> jax.Array:
    """(outputs, inputs x size): the rows of PyTorch's kernel."""
    return kernel.transpose(2, 1, 0).reshape(kernel.shape[2], -1)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), EPS)
