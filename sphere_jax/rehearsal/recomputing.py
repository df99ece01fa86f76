"""What a stage recomputes in its backward pass, and what it would store if it recomputed less."""

import dataclasses
from typing import Any, NamedTuple

import jax

from sphere_jax.config.option import leaves
from sphere_jax.config.options import Config
from sphere_jax.methods.base import Method
from sphere_jax.runs.system import System
from sphere_jax.training.flops import loss_arguments

WEAKER = {"blocks": "products", "products": "none"}  # policies of nn/remat.py
STRONGER = {weaker: policy for policy, weaker in WEAKER.items()}


class Recomputing(NamedTuple):
    """key: of the option, "config.model.remat". policy: its value. more: bytes that the policy
    after it in WEAKER would store besides, for all examples of a micro-batch."""

    key: str
    policy: str
    more: int


def recomputing(config: Config, name: str, params: Any, frozen: Any, size: int) -> Recomputing:
    """Of a stage, by the shapes of its parameters and of a micro-batch of `size`.

    A stage whose networks have no such option has the key "".
    """
    method = config.method(name)
    group = "model" if "model" in method.reads else "tokenizer"
    networks = getattr(config, group)
    policy = {key: leaf.value for key, leaf in leaves("", networks)}.get(".remat")
    if policy is None:
        return Recomputing("", "none", 0)
    more = 0
    if policy in WEAKER:
        less = dataclasses.replace(networks, remat=WEAKER[policy])
        now, then = (
            _stored(System(each).methods[name], params, frozen, size)
            for each in (config, dataclasses.replace(config, **{group: less}))
        )
        more = max(then - now, 0)
    return Recomputing(f"config.{group}.remat", policy, more)


def _stored(method: Method, params: Any, frozen: Any, size: int) -> int:
    """Bytes of all arrays that the backward pass of a micro-batch is given: more than a compiler
    stores, which computes again what is cheap."""

    def forward(params, *others):
        return jax.vjp(lambda params: method.loss(params, *others)[0], params)[1]

    arguments = loss_arguments(method, params, frozen, method.batch_shapes(), size)
    residuals = jax.eval_shape(forward, *arguments)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))
