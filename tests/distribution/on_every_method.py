"""Run by test_every_method.py with 8 CPU devices; prints what it found as one line of JSON.

One step of every method that is found by import, in the shipped config of the smallest images that
has a stage of it, its networks made small: on 2 x 4 devices against one.
"""

import dataclasses
import json
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator_numerics import parts_of, random_batch, shipped_configs
from sphere_jax.common import plugins
from sphere_jax.config.options import Config
from sphere_jax.distribution import mesh as meshes
from sphere_jax.distribution.mesh import batch_sharding, make_mesh, put_global, tree_shardings
from sphere_jax.distribution.placement import placed
from sphere_jax.methods import decoder_training
from sphere_jax.methods.base import Method
from sphere_jax.models import dino, discriminator, rae_decoder

BATCH = 16
LATE = 10**6  # a step at which every part of a schedule is on
SMALL = {
    "image_size": 32, "width": 32, "vit_width": 32, "depth": 1, "vit_depth": 1, "mixer_depth": 1,
    "heads": 2, "vit_heads": 2, "head_dim": 16, "hidden": 64, "widths": (8, 16), "decoder": "base",
    "size": "", "discriminator_width": 8, "strata": 8,
    # What sharding could break: statistics of a few samples, and a weight made of gradients.
    "adversarial_weight": 0.5, "norm_group": 2,
    "compute_dtype": "float32", "remat": "none", "unroll": False,
}  # fmt: skip


def make_small() -> None:
    """Sizes that no config sets, and that from which arrays are split."""
    meshes.SMALLEST = 2**8
    discriminator.DINO_SIDE = 32
    dino.KINDS[discriminator.DINO_KIND] |= dict(width=16, heads=2, grid=4)
    dino.KINDS["dinov2_vitb14_reg"] |= dict(width=32, depth=1, heads=2, grid=2)
    rae_decoder.SIZES["base"] = (1, 32, 2, 64)
    patches = decoder_training.patch_discriminator
    decoder_training.patch_discriminator = lambda channels, width, **more: patches(
        channels, min(width, SMALL["discriminator_width"]), **more
    )


def small(group, **more):
    known = {field.name for field in dataclasses.fields(group)}
    return dataclasses.replace(group, **{k: v for k, v in (SMALL | more).items() if k in known})


def small_stage(options):
    """Those that ship without a discriminator get one that is quick to compile."""
    groups = hasattr(options, "norm_group") and not options.adversarial_weight
    return small(options, **({"discriminator": "patch_batch_norm"} if groups else {}))


def cases() -> Iterator[tuple[str, Config, str]]:
    """Of every method: its name, a config and the name of its stage in it."""
    configs = [config for _, config in shipped_configs()]
    for name in plugins.known("methods", "METHOD"):
        config, stage = next(
            (config, stage)
            for config in configs
            for stage in config.stages
            if config.stage(stage).method == name
        )
        config = dataclasses.replace(
            config,
            data=small(config.data),
            model=small(config.model),
            tokenizer=small(config.tokenizer, patch=8),
            groups={each: small_stage(config.stage(each)) for each in config.stages},
        )
        yield name, config, stage


def step_on(mesh, method: Method, frozen: dict, params: dict, batch: dict):
    """`(loss, its parts)`, gradients, and the parameters after `advance`; and the part of the
    gradients' elements that is split."""

    def step(params, frozen, batch):
        keys = method.keys(jax.random.key(0), BATCH)
        if schedule := method.schedule(jnp.int32(LATE)):
            frozen = frozen | {"schedule": schedule}
        found, slope = jax.value_and_grad(method.loss, has_aux=True)(params, frozen, batch, keys)
        return found, slope, method.advance(params)

    trees = (params, frozen)
    shardings = tuple(tree_shardings(mesh, tree, True) for tree in trees)
    trees = put_global(mesh, trees, shardings)
    batch = put_global(mesh, batch, dict.fromkeys(batch, batch_sharding(mesh)))
    outputs = (None, shardings[0], shardings[0])
    found = jax.jit(placed(mesh, step, True), out_shardings=outputs)(*trees, batch)
    leaves = jax.tree.leaves(found[1])
    split = sum(x.size for x in leaves if not x.sharding.is_fully_replicated)
    return jax.tree.map(np.asarray, found), split / sum(x.size for x in leaves)


def norm(tree) -> float:
    return float(np.sqrt(sum(np.square(np.float64(x)).sum() for x in jax.tree.leaves(tree))))


def apart(tree, reference) -> float:
    """The norm of the difference over that of the reference."""
    difference = jax.tree.map(lambda a, b: np.float64(a) - b, tree, reference)
    return norm(difference) / norm(reference)


def main() -> None:
    make_small()
    found = {}
    for name, config, stage in cases():
        method, frozen, params = parts_of(config, stage)
        parts = (method, frozen, params, random_batch(method, config, BATCH, 0))
        one, _ = step_on(make_mesh(1, 1, jax.devices()[:1]), *parts)
        eight, split = step_on(make_mesh(2, 4), *parts)
        found[name] = {
            "loss": abs(float(eight[0][0] / one[0][0]) - 1),
            "parts": apart(eight[0][1], one[0][1]),
            "gradient": {part: apart(eight[1][part], one[1][part]) for part in one[1]},
            "advanced": apart(eight[2], one[2]),
            "size": {part: norm(tree) for part, tree in one[1].items()},
            "split": split,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
