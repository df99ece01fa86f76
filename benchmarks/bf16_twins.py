"""The float32 parts of training ("islands"), each with a twin in bfloat16.

A twin is a plain implementation on bfloat16 inputs: every operation rounds its result to 8 bits;
sums are taken in float32 and rounded once, as PyTorch and `jnp.sum` do. Twins replace functions of
the library while a program is traced (`in_bfloat16`); the library has no option for them, because
they are never better.
"""

import contextlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.geometry.spaces import TokenSphere
from sphere_jax.models.transformer import Trunk
from sphere_jax.nn import attention
from sphere_jax.nn import transformer_layers as transformer
from sphere_jax.nn.embeddings import MAX_PERIOD, TIME_FEATURES, TimeEmbedding
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.norms import LayerNorm, RMSNorm, per_channel
from sphere_jax.training import step
from sphere_jax.training.averages import update_ema

HALF = jnp.bfloat16
FULL = jnp.float32


def half(*arrays):
    """The arrays in bfloat16."""
    arrays = tuple(jnp.asarray(a).astype(HALF) for a in arrays)
    return arrays if len(arrays) > 1 else arrays[0]


def full(arrays):
    """The arrays in float32."""
    return tuple(a.astype(FULL) for a in arrays)


# --- geometry, as in docs/systems/hae.md#flow -----------------------------------------------------


def angle(u, w):
    """`arccos <u, w>` of unit vectors (..., d), bfloat16."""
    u, w = half(u, w)
    return jnp.arccos(jnp.clip(jnp.sum(u * w, -1), -1, 1))


def interpolate(space, z0, z1, t):
    """slerp and its velocity with arccos and sines, bfloat16."""
    z0, z1, t = half(z0, z1, t)
    t = t.reshape(t.shape + (1,) * (z0.ndim - t.ndim))
    a = angle(z0 / half(space.radius), z1 / half(space.radius))[..., None]
    z_t = (jnp.sin((1 - t) * a) * z0 + jnp.sin(t * a) * z1) / jnp.sin(a)
    return z_t, a * (jnp.cos(t * a) * z1 - jnp.cos((1 - t) * a) * z0) / jnp.sin(a)


def split(space, z, v):
    """Tangent and radial part, `n <n, v>` taken once, bfloat16."""
    z, v = half(z, v)
    n = z / jnp.sqrt(jnp.sum(z * z, -1, keepdims=True))
    radial = jnp.sum(n * v, -1, keepdims=True) * n
    return v - radial, radial


def exp_step(space, z, v, dt):
    """`cos(a) z + R sin(a) v / |v|`, a = |dt| |v| / R, renormalised, bfloat16:
    the sampling step of docs/systems/hae.md#flow."""
    z, v, dt = half(z, v, dt)
    v = split(space, z, v)[0]
    speed = jnp.sqrt(jnp.sum(v * v, -1, keepdims=True))
    a = dt * speed / half(space.radius)
    z = jnp.cos(a) * z + half(space.radius) * jnp.sin(a) * v / speed
    return half(space.radius) * z / jnp.sqrt(jnp.sum(z * z, -1, keepdims=True))


# --- layers --------------------------------------------------------------------------------------


def time_features(t, frequencies=None):
    """The features of t (B,) that `TimeEmbedding` gives to its linears, bfloat16."""
    t = half(t)[:, None]
    if frequencies is None:
        steps = MAX_PERIOD ** (-np.arange(TIME_FEATURES // 2) / (TIME_FEATURES // 2))
        angles = t * half(steps)[None]
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
    angles = half(2 * np.pi) * t * half(frequencies)[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def embed_time(self, t):
    """The time embedding (B, width), bfloat16 throughout."""
    frequencies = self.frequencies
    x = time_features(t, None if frequencies is None else jax.lax.stop_gradient(frequencies[...]))
    for linear in (self.hidden, self.output):
        x = half(x) @ half(linear.kernel[...]) + half(linear.bias[...])[None]
        x = jax.nn.silu(x) if linear is self.hidden else x
    return x.astype(FULL)


def rms_norm(self, x):
    """RMSNorm with bfloat16 squares, mean and root."""
    y = half(x)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + half(self.eps))
    return (y * per_channel(half(self.scale[...]), y.ndim)).astype(x.dtype)


def layer_norm(self, x):
    """LayerNorm with bfloat16 means, squares and root."""
    y = half(x)
    y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + half(self.eps))
    if self.scale is not None:
        y = y * per_channel(half(self.scale[...]), y.ndim) + per_channel(
            half(self.bias[...]), y.ndim
        )
    return y.astype(x.dtype)


def attend(q, k, v):
    """Attention with bfloat16 logits and softmax."""
    q, k, v = (x.transpose(0, 2, 1, 3) for x in half(q, k, v))
    weights = jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", q, k) * half(q.shape[-1] ** -0.5))
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v).transpose(0, 2, 1, 3)


def linear(self, x):
    """Linear whose bias is added in bfloat16, so that its gradient is a bfloat16 sum over rows."""
    y = x.astype(self.dtype).reshape(-1, x.shape[-1]) @ self.kernel[...].astype(self.dtype)
    if self.bias is not None:
        y = y + self.bias[...].astype(self.dtype)[None]
    return y.reshape(*x.shape[:-1], y.shape[-1])


def modulate(x, shift, scale):
    """`x (1 + scale) + shift` in bfloat16: gradients of shift and scale are sums over tokens."""
    x, shift, scale = half(x, shift, scale)
    return x * (1 + scale) + shift


def gated(x, gate, branch):
    """`x + gate branch` with a bfloat16 product."""
    return x + (half(gate) * half(branch)).astype(x.dtype)


_embed = Trunk.embed  # that of the library, which the twin below calls


def embed(self, z):
    """Tokens in bfloat16, which every block keeps: the residual stream."""
    return half(_embed(self, z))


# --- training ------------------------------------------------------------------------------------


def average(ema, params, decay, updates):
    """The moving average, rounded to bfloat16 after every update."""
    return jax.tree.map(lambda m: half(m).astype(FULL), update_ema(ema, params, decay, updates))


_interpolate, _split = TokenSphere.interpolate, TokenSphere.split

# Replacements for each island. The loss is broken by bfloat16 operands.
ISLANDS = {
    "geometry": [
        (TokenSphere, "interpolate", lambda *args: full(interpolate(*args))),
        (TokenSphere, "split", lambda *args: full(split(*args))),
    ],
    "time embedding": [(TimeEmbedding, "__call__", embed_time)],
    "residual stream": [(Trunk, "embed", embed)],
    "norm statistics": [(RMSNorm, "__call__", rms_norm), (LayerNorm, "__call__", layer_norm)],
    "softmax": [(attention, "attend", attend)],
    "bias, modulation, gates": [
        (Linear, "__call__", linear),
        (transformer, "modulate", modulate),
        (transformer, "gated", gated),
    ],
    "loss": [
        (TokenSphere, "interpolate", lambda *args: _half_target(*_interpolate(*args))),
        (TokenSphere, "split", lambda *args: half(*_split(*args))),
    ],
    "moving average": [(step, "update_ema", average)],
}
EVERYTHING = [
    (TokenSphere, "interpolate", interpolate),
    (TokenSphere, "split", split),
    *(twin for name in ISLANDS if name not in ("geometry", "loss") for twin in ISLANDS[name]),
]


def _half_target(z_t, u_t):
    return z_t, half(u_t)


@contextlib.contextmanager
def in_bfloat16(twins):
    """Within, every `(owner, name, twin)` of `twins` is in place; trace the program inside."""
    with contextlib.ExitStack() as stack:
        for owner, name, twin in twins:
            stack.enter_context(mock.patch.object(owner, name, twin))
        yield
