"""Run by test_sharding.py with 8 CPU devices; prints what it found as one line of JSON.

Trains one stage for 20 steps on every mesh of 1, 2, 4 and 8 devices, and looks into the compiled
steps.
"""

import functools
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from traced import kept_by_tensor, made_whole

from sphere_jax.config.reading import read_config
from sphere_jax.distribution import mesh as meshes
from sphere_jax.distribution.mesh import (
    batch_sharding,
    make_mesh,
    put_global,
    replicated,
    tree_shardings,
)
from sphere_jax.distribution.placement import layers_split, on_each_device, placed
from sphere_jax.models import vit
from sphere_jax.models.flow_sphere_layers import Layer
from sphere_jax.models.lightning_dit import lightning_layers
from sphere_jax.nn import attention
from sphere_jax.nn.conv import ResBlock
from sphere_jax.nn.functional import Network
from sphere_jax.nn.transformer_layers import Block, Stack
from sphere_jax.runs.run import Run

MESHES = [  # data, fsdp, tensor, zero
    (1, 1, 1, True),
    (2, 1, 1, True), (1, 2, 1, True), (1, 1, 2, True),
    (4, 1, 1, True), (2, 2, 1, True), (1, 4, 1, True), (2, 1, 2, True), (1, 2, 2, False),
    (8, 1, 1, True), (4, 2, 1, True), (2, 4, 1, True), (1, 8, 1, True), (2, 2, 2, True),
    (1, 2, 4, True),
    (8, 1, 1, False), (2, 4, 1, False),
]  # fmt: skip
STEPS, BATCH, SHAPE, WIDTH = 20, 40, (2, 2, 4), 64
TOKENS = SHAPE[0] * SHAPE[1]
WHOLE = (f"{BATCH},{TOKENS},{WIDTH}", f"{BATCH * TOKENS},{WIDTH}")
meshes.SMALLEST = WIDTH**2  # of the arrays that are split, those of a layer included
CONFIG = {
    "stages": ("flow",),
    "data": {"source": "latents"},
    "tokenizer": {"name": "precomputed", "latent_shape": SHAPE},
    "model": {"width": WIDTH, "depth": 2, "heads": 2, "unroll": False, "remat": "blocks"},
    "flow": {
        "steps": STEPS, "batch_size": BATCH, "label_dropout": 0.5, "ema_decay": 0.5,
        # A large eps: AdamW otherwise divides gradients near zero by their own rounding.
        "optimizer": {"learning_rate": 1e-3, "eps": 1e-3},
    },
}  # fmt: skip


def mesh_of(data: int, fsdp: int, tensor: int = 1):
    return make_mesh(data, fsdp, jax.devices()[: data * fsdp * tensor], tensor=tensor)


@functools.cache
def first_state() -> dict:
    """On one device: a program that draws it for each mesh would be compiled for each."""
    state = (
        Run(read_config(CONFIG), Path(), mesh_of(1, 1)).task("flow", training=True).initial_state()
    )
    rng = np.random.default_rng(0)
    # Off its start, where zero kernels give most parameters no gradient.
    noise = lambda p: 0.05 * rng.normal(size=p.shape).astype(np.float32)  # noqa: E731
    return state | {"params": jax.tree.map(lambda p: p + noise(p), state["params"])}


def on(
    data: int, fsdp: int, tensor: int, zero: bool, config: dict = CONFIG, steps: int = STEPS
) -> tuple:
    """Losses, the first gradient, the final parameters and state, the compiled step, the task, and
    the traced step."""
    config = read_config(config | {"mesh": {"zero": zero}})
    mesh = mesh_of(data, fsdp, tensor)
    task = Run(config, Path(), mesh).task("flow", training=True)
    state = jax.tree.map(lambda x: x.copy(), first_state())  # steps donate it
    state = jax.device_put(state, task.state_shardings)
    rng, losses, first = np.random.default_rng(1), [], None
    for _ in range(steps):
        batch = {
            "latents": rng.normal(size=(BATCH, *SHAPE)).astype(np.float32),
            "labels": rng.integers(10, size=BATCH).astype(np.int32),
        }
        batch = put_global(mesh, batch, dict.fromkeys(batch, batch_sharding(mesh)))
        if first is None:
            traced = task.train_step.trace(state, task.frozen, batch)
            compiled = traced.lower().compile()
        state, metrics = compiled(state, task.frozen, batch)
        if first is None:  # (1 - b1) times the gradient, clipped
            moments = [s for s in jax.tree.leaves(state["optimizer"], is_leaf=_adam) if _adam(s)]
            first = jax.tree.map(np.asarray, moments[0].mu)
        losses.append(float(metrics["loss"]))
    params = jax.tree.map(np.asarray, state["params"])
    return losses, first, params, state, compiled, task, traced


def _adam(node) -> bool:
    return hasattr(node, "mu")


def largest(a, b) -> float:
    """Largest difference over the largest value."""
    scale = max(np.abs(x).max() for x in jax.tree.leaves(b))
    differences = jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)
    return float(max(jax.tree.leaves(differences)) / scale)


def farthest(losses, reference) -> float:
    """The largest relative difference of two losses of one step."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True))


def elements(shape: str) -> int:
    """Of an array whose shape the compiler writes as "2,128"."""
    return math.prod(map(int, shape.split(",")))


def bytes_of(leaf) -> int:
    return leaf.addressable_shards[0].data.nbytes if hasattr(leaf, "addressable_shards") else 0


def in_bfloat16() -> dict:
    """On 2 x 2 x 2 devices against one, in five micro-batches of the same examples each."""
    found = []
    for data, fsdp, tensor, most in ((1, 1, 1, 8), (2, 2, 2, 1)):
        model = CONFIG["model"] | {"compute_dtype": "bfloat16", "remat": "products"}
        flow = CONFIG["flow"] | {"most_per_device": most}
        found.append(on(data, fsdp, tensor, True, CONFIG | {"model": model, "flow": flow}, 5))
    one, eight = found
    return {
        "micro_batches": [task.options.accumulate for *_, task, _ in found],
        "loss": farthest(eight[0], one[0]),
        "gradient": largest(eight[1], one[1]),
        "params": largest(eight[2], one[2]),
    }


def gradient_on(mesh, loss, params, x) -> tuple:
    """The loss of a batch and its gradient, and the traced function."""
    shardings = tree_shardings(mesh, params, True)
    arguments = put_global(mesh, (params, x), (shardings, batch_sharding(mesh)))
    step = jax.jit(placed(mesh, jax.value_and_grad(loss), True), out_shardings=(None, shardings))
    traced = step.trace(*arguments)
    return jax.tree.map(np.asarray, traced.lower().compile()(*arguments)), traced.jaxpr


def convolutions() -> dict:
    """A convolutional network on 1 x 8 and 2 x 4 devices against one: loss, gradient, and how
    many of its kernels are gathered."""
    network = Network(lambda rngs: ResBlock(64, 64, rngs=rngs))
    params = jax.tree.map(np.asarray, network.init(jax.random.key(0)))
    x = np.random.default_rng(0).normal(size=(BATCH, 8, 8, 64)).astype(np.float32)

    def loss(params, x):
        return (network.apply(params, x) ** 2).mean()

    found, reference = {}, None
    for data, fsdp in ((1, 1), (1, 8), (2, 4)):
        result, jaxpr = gradient_on(mesh_of(data, fsdp), loss, params, x)
        reference = reference or result
        found[f"{data}x{fsdp}"] = {
            "loss": abs(float(result[0] / reference[0]) - 1),
            "gradient": largest(result[1], reference[1]),
            "gathered": sum(len(shape) == 4 for shape in made_whole(jaxpr)),
        }
    return found


def layers() -> dict:
    """Layers of all kinds on 2 x 2 x 2 devices against one: loss, gradient, and how many kernels
    stay split over `tensor`."""
    lightning = lightning_layers(
        128, 4, (4, 4), mlp_ratio=4.5, qk_norm=True, gate_bias=True, dtype=jnp.float32
    )
    of_vit = dict(key_bias=False, layer_scale=True, swiglu=False, exact_gelu=True, activation=None)
    found = {}
    for name, depth, make, outputs in (
        ("conditioned by token", 2, lambda rngs: Block(128, **lightning, rngs=rngs),
         lambda stack, x: stack(x, x[:, ::-1])),
        ("a single one, of flow_sphere", 1, lambda rngs: Layer(
            128, 4, 64, 512, ("2d", (4, 4), 1), rngs=rngs, dtype=jnp.float32
        ), lambda stack, x: stack(x)),
        ("of a ViT, with taps", 3, lambda rngs: vit.Block(
            128, 4, 512, eps=1e-6, dtype=jnp.float32, rngs=rngs, **of_vit
        ), lambda stack, x: jnp.stack(vit.run_tapped(stack, x, [0, 2], None))),
    ):  # fmt: skip
        network = Network(
            lambda rngs, make=make, depth=depth: Stack(make, depth, rngs=rngs, remat="products")
        )
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda p, rng=rng: np.asarray(p) + 0.05 * rng.normal(size=p.shape).astype(np.float32),
            network.init(jax.random.key(0)),
        )
        x = rng.normal(size=(BATCH, 16, 128)).astype(np.float32)

        def loss(params, x, network=network, outputs=outputs):
            return (outputs(network.bind(params), x) ** 2).mean()

        one, _ = gradient_on(mesh_of(1, 1), loss, params, x)
        eight, jaxpr = gradient_on(mesh_of(2, 2, 2), loss, params, x)
        found[name] = {
            "loss": abs(float(eight[0] / one[0]) - 1),
            "gradient": largest(eight[1], one[1]),
            "kept": sorted(set(kept_by_tensor(jaxpr))),
        }
    return found


def on_parts() -> dict:
    """`on_each_device` on 2 x 4 and 2 x 2 x 2 devices against none, in a recomputed scan, of
    batches and heads that they divide and that they do not: output and gradient."""
    found = {}

    def each_head(x):
        weights = jnp.tanh(jnp.einsum("bnhd,bmhd->bhnm", x, x))
        return jnp.einsum("bhnm,bmhd->bnhd", weights, x)

    def loss(x, w):
        def step(x, _):
            with layers_split():
                return on_each_device(each_head, x * w), None

        return jax.lax.scan(jax.checkpoint(step), x, length=3)[0].sum()

    for sizes, batch, heads in (
        ((2, 4, 1), 16, 3), ((2, 4, 1), 6, 3), ((2, 2, 2), 16, 4), ((2, 2, 2), 16, 3)
    ):  # fmt: skip
        mesh = make_mesh(*sizes[:2], tensor=sizes[2])
        x = np.random.default_rng(0).normal(size=(batch, 4, heads, 4)).astype(np.float32)
        rows = batch_sharding(mesh) if batch == 16 else replicated(mesh)
        alone, split = (
            jax.jit(jax.value_and_grad(function, (0, 1))) for function in (loss, placed(mesh, loss))
        )
        ours = split(put_global(mesh, x, rows), jnp.float32(0.3))
        found[f"{mesh.axis_names} {batch} {heads}"] = largest(
            *(jax.tree.map(np.asarray, f) for f in (ours, alone(x, 0.3)))
        )
    return found


def attention_kernels() -> list[list[str]]:
    """Operands of those of a loss and its gradient on 1 x 8 and 1 x 4 x 2 devices, traced as for a
    TPU."""
    found, attention.platform = [], lambda: "tpu"

    def loss(q):
        with layers_split():
            return attention.attend(q, q, q).astype(jnp.float32).sum()

    for fsdp, tensor in ((8, 1), (4, 2)):
        mesh = make_mesh(1, fsdp, tensor=tensor)
        q = jax.ShapeDtypeStruct((8, 1024, 2, 64), jnp.bfloat16, sharding=batch_sharding(mesh))
        traced = jax.jit(placed(mesh, jax.grad(loss))).trace(q)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
        kernels = [line for line in text.splitlines() if "tpu_custom_call" in line]
        found.append([re.search(r"tensor<(\w+x1024x64)xbf16>", line).group(1) for line in kernels])
    return found


def main() -> None:
    found, reference = {}, None
    for data, fsdp, tensor, zero in MESHES:
        losses, gradient, params, state, compiled, _, traced = on(data, fsdp, tensor, zero)
        reference = reference or (losses, gradient, params)
        arrays = [
            x for part in ("params", "ema", "optimizer") for x in jax.tree.leaves(state[part])
        ]
        large = [x for x in arrays if x.size >= meshes.SMALLEST]
        gathers = re.findall(r"= \w+\[([\d,]+)\]\S* all-gather\(", compiled.as_text())
        whole = made_whole(traced.jaxpr)
        axes = f"{data}x{fsdp}" + (f"x{tensor}" if tensor > 1 else "")
        found[axes + ("" if zero else " without zero")] = {
            "layers": whole.count((WIDTH, 4 * WIDTH)),  # of the feed-forward
            "modulations": whole.count((WIDTH, 6 * WIDTH)),
            "kept": kept_by_tensor(traced.jaxpr).count((WIDTH, 4 * WIDTH)),
            "loss": farthest(losses, reference[0]),
            "gradient": largest(gradient, reference[1]),
            "params": largest(params, reference[2]),
            "share": max(bytes_of(x) / x.nbytes for x in large),
            # Tokens of all images, as they are and as rows: shapes that no parameter has.
            "whole_batches": sum(shape in WHOLE for shape in gathers),
            "largest_gather": max(map(elements, gathers), default=0),
            "arguments": compiled.memory_analysis().argument_size_in_bytes,
            "temporaries": compiled.memory_analysis().temp_size_in_bytes,
        }
    size = sum(x.nbytes for x in jax.tree.leaves(params["network"]["blocks"]))
    more = {"bfloat16": in_bfloat16(), "convolutions": convolutions(), "kinds": layers()}
    more |= {"parts": on_parts(), "kernels": attention_kernels()}
    print(json.dumps({"steps": found, "blocks": size, **more}))


if __name__ == "__main__":
    main()
