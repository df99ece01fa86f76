"""Pre-norm transformer block with adaLN-Zero, a stack of them scanned over depth, and the head.

Equations: docs/systems/shared.md#blocks. `c` is the conditioning vector after SiLU: (B, width), the
same for all tokens, or (B, N, width), one for each.

Only matrix products, and what lies between two of them, are computed in bfloat16. Tokens `x` keep
their dtype, float32 in every network of these blocks, so that 2 x depth small additions are not
rounded away. Modulation and gates are float32 too, and so are their gradients, which are sums over
all tokens (docs/bf16.md).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, Hidden, Tokens
from sphere_jax.distribution.placement import gathered_layer, layers_split, split_by_batch
from sphere_jax.nn.linear import Linear, zeros
from sphere_jax.nn.remat import Remat, recomputed

Condition = Float[AnyArray, "batch width"] | Tokens
PerToken = Float[AnyArray, "batch #tokens width"]  # or the same for all tokens


def modulate(x: Tokens, shift: PerToken, scale: PerToken) -> Tokens:
    """`x (1 + scale) + shift`, float32; x (B, N, width), shift and scale (B, 1 or N, width)."""
    x, shift, scale = (a.astype(jnp.float32) for a in (x, shift, scale))
    return x * (1 + scale) + shift


def gated(x: Tokens, gate: PerToken | Float[AnyArray, ""], branch: Tokens) -> Tokens:
    """`x + gate branch` in the dtype of x, the product in float32.

    x and branch are (B, N, width), gate is (B, 1 or N, width) or ().
    """
    return x + (gate.astype(jnp.float32) * branch.astype(jnp.float32)).astype(x.dtype)


def _per_token(c: Condition) -> Tokens:
    """(B, width) -> (B, 1, width); (B, N, width) stays."""
    return c if c.ndim == 3 else c[:, None]


class Block(nnx.Module):
    """Attention and feed-forward, each `x += gate * layer(modulate(norm(x), shift, scale))`.

    `norm()`, `attention(rngs)` and `mlp(rngs)` make the layers. The modulation is a linear layer
    from `c` to the shift, scale and gate of attention, then those of the feed-forward; it is
    initialised to zero, so that a new block is the identity. With `conditional=False`, `c` is
    ignored and the block is `x += layer(norm(x))`.
    """

    def __init__(
        self,
        width: int,
        *,
        norm: Callable[[], nnx.Module],
        attention: Callable[[nnx.Rngs], nnx.Module],
        mlp: Callable[[nnx.Rngs], nnx.Module],
        rngs: nnx.Rngs,
        conditional: bool = True,
        dtype: DTypeLike = jnp.float32,
    ):
        self.norm1, self.norm2 = norm(), norm()
        self.attention = attention(rngs)
        self.mlp = mlp(rngs)
        options = dict(rngs=rngs, init=zeros, dtype=dtype, split="output", few=True)
        self.modulation = Linear(width, 6 * width, **options) if conditional else None

    def __call__(self, x: Tokens, c: Condition | None) -> Tokens:
        """x (B, N, width), c (B, width) or (B, N, width) -> (B, N, width) in the dtype of x."""
        if self.modulation is None:
            x = x + self.attention(self.norm1(x)).astype(x.dtype)
            return x + self.mlp(self.norm2(x)).astype(x.dtype)
        six = jnp.split(split_by_batch(self.modulation(_per_token(c))), 6, axis=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six
        x = gated(x, gate1, self.attention(modulate(self.norm1(x), shift1, scale1)))
        return gated(x, gate2, self.mlp(modulate(self.norm2(x), shift2, scale2)))


class Stack(nnx.Module):
    """`depth` modules of one kind in sequence, their parameters stacked on a leading depth axis.

    `make(rngs)` builds a module; each is initialised from a different key. The stack runs as
    `lax.scan` with `unroll` modules per iteration (True: all of them), so that tracing and compile
    time do not grow with depth. `remat`: what the backward pass recomputes (`nn/remat.py`).

    On a mesh `x` is split by its leading axis, the batch, before the first module and after each.
    Where a `tensor` axis splits layers, its devices hold the same examples from the first module to
    the last.
    """

    def __init__(
        self,
        make: Callable[[nnx.Rngs], nnx.Module],
        depth: int,
        *,
        rngs: nnx.Rngs,
        unroll: int | bool = 1,
        remat: Remat = "none",
    ):
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
        keys = jax.random.split(rngs.params(), depth)
        state = jax.vmap(lambda key: nnx.state(make(nnx.Rngs(key))))(keys)
        self.layers = nnx.merge(graphdef, state)  # one module whose arrays carry the depth axis
        self.unroll = unroll
        self.remat = remat

    def __call__(self, x: Hidden, *args: Any) -> Hidden:
        """`x -> layer(x, *args)` for each layer in turn, with the same `args`; x is (..., C)."""
        return self._scan(x, args, lambda x: None)[0]

    def states(self, x: Hidden, *args: Any) -> Float[AnyArray, "depth *batch width"]:
        """The outputs of all layers, (depth, ..., C); the last is that of the stack."""
        return self._scan(x, args, lambda x: x)[1]

    def scanned(self, *args: Any) -> tuple[Any, Callable]:
        """The stacked parameters, and `(x, those of one layer) -> layer(x, *args)`."""
        graphdef, state = nnx.split(self.layers)
        stacked = {path: leaf.shape for path, leaf in nnx.to_flat_state(state)}

        def gather(path, leaf):
            if leaf.get_metadata().get("few"):  # by the layer, which knows how many rows it has
                return leaf.replace(leaf[...], stack=stacked[path])
            return leaf.replace(gathered_layer(leaf[...], stacked[path], _split_axis(leaf)))

        with self.splitting():
            args = jax.tree.map(
                lambda a: split_by_batch(a) if isinstance(a, jax.Array) else a, args
            )

        def layer(x, state):
            # Gathered inside of what is recomputed: with remat="none" the gathered weights of all
            # layers wait for the backward pass.
            with self.splitting():
                state = nnx.map_state(gather, state)
                return split_by_batch(nnx.merge(graphdef, state)(split_by_batch(x), *args))

        return state, recomputed(layer, self.remat)

    def splitting(self) -> AbstractContextManager[None]:
        """`layers_split`, if there are layers to be split."""
        leaves = nnx.to_flat_state(nnx.state(self.layers)).leaves
        splits = any(_split_axis(leaf) is not None for leaf in leaves)
        return layers_split() if splits else nullcontext()

    def _scan(self, x, args, keep):
        state, layer = self.scanned(*args)

        def step(x, state):
            x = layer(x, state)
            return x, keep(x)

        # One layer needs no loop: lax.scan would make one, unrolled or not, and XLA on CPU runs
        # convolutions fifty times slower in the backward pass of a loop.
        if jax.tree.leaves(state)[0].shape[0] == 1:
            x, output = step(x, jax.tree.map(lambda leaf: leaf[0], state))
            return split_by_batch(x), jax.tree.map(lambda leaf: leaf[None], output)
        with self.splitting():
            x = split_by_batch(x)
            x, outputs = jax.lax.scan(step, x, state, unroll=self.unroll)
            x = split_by_batch(x)  # or the loop would carry it as it is split behind
        return split_by_batch(x), outputs


def _split_axis(variable: nnx.Variable) -> int | None:
    """The axis of a layer's weight that `tensor` splits: see `nn/linear.py`."""
    return variable.get_metadata().get("split")


class Head(nnx.Module):
    """Norm, adaLN shift and scale, linear: (B, N, width) -> (B, N, features_out); initially zero.

    `norm=None` omits the norm, `conditional=False` the modulation.
    """

    def __init__(
        self,
        width: int,
        features_out: int,
        *,
        norm: Callable[[], nnx.Module] | None,
        rngs: nnx.Rngs,
        conditional: bool = True,
        dtype: DTypeLike = jnp.float32,
    ):
        self.norm = norm() if norm else None
        self.modulation = (
            Linear(width, 2 * width, rngs=rngs, init=zeros, dtype=dtype) if conditional else None
        )
        self.output = Linear(width, features_out, rngs=rngs, init=zeros, dtype=dtype)

    def __call__(self, x: Tokens, c: Condition | None) -> Float[AnyArray, "batch tokens out"]:
        x = x if self.norm is None else self.norm(x)
        if self.modulation is not None:
            x = modulate(x, *jnp.split(self.modulation(_per_token(c)), 2, axis=-1))
        return self.output(x)
