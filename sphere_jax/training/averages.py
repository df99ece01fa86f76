"""Exponential moving average of parameters, right from the first step."""

import jax
import jax.numpy as jnp


def update_ema(ema, params, decay: float, updates: jax.Array):
    """The float32 average after one more than `updates` updates (the first call has 0).

    `m_t = sum_i (1-d) d^(t-i) theta_i / (1 - d^t)`: the plain `m <- d m + (1-d) theta` of
    methods.md K without the weight of a start that is no parameter of the run. With
    `d_t = d (1 - d^(t-1)) / (1 - d^t)` it needs no extra state: d_1 = 0 and d_t tends to d.
    """
    t = updates.astype(jnp.float32) + 1.0
    # -expm1(t log d) keeps the digits of 1 - d^t where d is close to 1.
    log_decay = jnp.log(jnp.maximum(jnp.float32(decay), 1e-30))
    d = decay * jnp.expm1((t - 1.0) * log_decay) / jnp.expm1(t * log_decay)
    return jax.tree.map(lambda m, p: m + (1.0 - d) * (p.astype(jnp.float32) - m), ema, params)
