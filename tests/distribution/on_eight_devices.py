"""Run by test_devices.py in a process with 8 CPU devices; prints what it found as one line of JSON.

Trains the same stage on four meshes, restores on one what eight have saved, and samples.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.reading import read_config
from sphere_jax.data.pipeline import Batches, map_batched
from sphere_jax.data.source import Source
from sphere_jax.distribution.mesh import (
    batch_sharding,
    make_mesh,
    put_global,
    split_batches,
    tree_shardings,
)
from sphere_jax.runs.drawing import balanced_labels, draw
from sphere_jax.runs.run import Run
from sphere_jax.runs.system import System
from sphere_jax.sampling import sample_noise
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.loop import Feed, train
from sphere_jax.training.run_log import RunLog, read_rows

COMMON = {
    "model": {"width": 64, "depth": 1, "heads": 2},
    "flow": {
        "steps": 4, "batch_size": 16, "accumulate": 2, "label_dropout": 0.5, "ema_decay": 0.5,
        "log_every": 1, "checkpoint_every": 4, "optimizer": {"learning_rate": 1e-3},
    },
}  # fmt: skip
LATENTS = COMMON | {
    "stages": ("flow",),
    "data": {"source": "latents"},
    "tokenizer": {"name": "precomputed", "latent_shape": (2, 2, 4)},
}
IMAGES = COMMON | {
    "stages": ("vae", "flow"),
    "data": {"source": "digits", "image_size": 16},
    "tokenizer": {"patch": 4, "widths": (8,), "latent_channels": 4},
    "vae": {},
    "sampler": {"steps": 4, "guidance": 2.0, "batch_size": 24},
}


def mesh_of(data, fsdp, tensor=1):
    return make_mesh(data, fsdp, jax.devices()[: data * fsdp * tensor], tensor=tensor)


def latents(count=64):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(count, 2, 2, 4)).astype(np.float32)
    return Source({"latents": z, "labels": (np.arange(count) % 10).astype(np.int32)})


def largest(a, b):
    differences = jax.tree.map(lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max(), a, b)
    return float(max(jax.tree.leaves(differences)))


def training(folder: Path) -> dict:
    config, source, averages, losses = read_config(LATENTS), latents(), {}, {}
    tasks, feed = {}, Feed(source, source)
    for data, fsdp in ((1, 1), (8, 1), (2, 4)):
        mesh, name = mesh_of(data, fsdp), f"{data}x{fsdp}"
        run = Run(config, folder / name, mesh)
        tasks[name] = run.task("flow")
        log = RunLog(run.workdir)
        task, checkpoints = tasks[name], folder / name / "flow"
        ema = train(task, feed, checkpoints, log, 1e9, lambda step, pictures: None)
        log.close()
        averages[name] = jax.tree.map(np.asarray, ema)
        rows = read_rows(run.workdir / "metrics.jsonl")
        losses[name] = [row["loss"] for row in rows if "loss" in row]
        if name == "2x4":
            sharded = [x for x in jax.tree.leaves(ema) if not x.sharding.is_fully_replicated]
            shard = [x.addressable_shards[0].data.size / x.size for x in sharded]

    restored = []
    for data, fsdp, tensor in ((1, 1, 1), (2, 2, 1), (1, 8, 1), (1, 2, 4)):
        mesh = mesh_of(data, fsdp, tensor)
        checkpoints = Checkpoints(folder / "2x4" / "flow")
        abstract = dataclasses.replace(tasks["2x4"], frozen={}, mesh=mesh).abstract_state
        state, _ = checkpoints.restore(4, abstract)
        checkpoints.close()
        assert jax.tree.leaves(state["ema"])[0].sharding.mesh.devices.size == mesh.size
        restored.append(largest(state["ema"], averages["2x4"]))
    single = averages["1x1"]
    return {
        "averages": {name: largest(ema, single) for name, ema in averages.items()},
        "moved": largest(single, jax.tree.map(np.zeros_like, single)),
        "losses": losses,
        "restored": restored,
        "sharded_arrays": len(sharded),
        "shards": sorted(set(shard)),
    }


def sampling(folder: Path) -> dict:
    config = read_config(IMAGES)
    method = System(config).methods["flow"]
    tokenizer, keys = method.tokenizer, jax.random.split(jax.random.key(0), 3)
    params = {
        "encoder": jax.jit(tokenizer.encoder.init)(keys[0]),
        "decoder": jax.jit(tokenizer.decoder.init)(keys[1]),
        "network": jax.jit(lambda k: method.init(k, {})["network"])(keys[2]),
        "statistics": {"mean": jnp.zeros(4), "std": jnp.ones(4)},
    }
    rng = np.random.default_rng(0)
    params = jax.tree.map(np.asarray, params)
    params["network"] = jax.tree.map(  # off its zero start
        lambda p: p + 0.05 * rng.normal(size=p.shape).astype(np.float32), params["network"]
    )
    images, noise = {}, {}
    for name, (axes, batch) in {
        "one": ((1, 1), 40), "one by one": ((1, 1), 7), "8x1": ((8, 1), 40), "2x4": ((2, 4), 16),
        "2x2x2": ((2, 2, 2), 16),
    }.items():  # fmt: skip
        mesh = mesh_of(*axes)
        sampler = dataclasses.replace(config.sampler, batch_size=batch)
        run = Run(dataclasses.replace(config, sampler=sampler), folder, mesh)
        run.artifacts = put_global(mesh, params, tree_shardings(mesh, params))
        images[name] = draw(run, balanced_labels(40, 10), seed=5).images.astype(int)
        shape, key = tokenizer.latent_shape, jax.random.key(5)
        noise[name] = map_batched(
            jax.jit(lambda i, key=key, shape=shape: sample_noise(key, i, shape)),
            (np.arange(40, dtype=np.uint32),),
            -(-batch // mesh.size) * mesh.size,
            batch_sharding(mesh),
        )
    return {
        "same_noise": all(np.array_equal(x, noise["one"]) for x in noise.values()),
        "images": {name: int(np.abs(x - images["one"]).max()) for name, x in images.items()},
        "contrast": float(images["one"].std()),
    }


def batches() -> dict:
    """Where rows lie: device k of 8 holds rows k B / 8 to (k + 1) B / 8."""
    found = {}
    for data, fsdp in ((1, 1), (8, 1), (2, 4)):
        sharding = batch_sharding(mesh_of(data, fsdp))
        drawn = Batches(latents(), 16, 0, sharding)
        batch = [next(drawn) for _ in range(3)][-1]["labels"]
        shards = sorted(batch.addressable_shards, key=lambda s: s.device.id)
        found[f"{data}x{fsdp}"] = np.concatenate([s.data for s in shards]).tolist()
        assert len(shards) == data * fsdp
    return found


def micro_batches() -> dict:
    """Of a stage of 16 examples, at most one on a device, on 1, 4 and 8 devices; and of a finished
    one, read on devices that do not split its batch."""
    config = read_config(LATENTS | {"flow": LATENTS["flow"] | {"most_per_device": 1}})
    found = {}
    for count in (1, 4, 8):
        run = Run(config, Path(), mesh_of(1, count))
        found[count] = run.task("flow", training=True).options.accumulate
    found["3, read"] = Run(config, Path(), mesh_of(3, 1)).task("flow").options.accumulate
    return found


def refusals() -> list[str]:
    refusals, odd = [], LATENTS | {"flow": {"batch_size": 20}}
    for attempt in (
        lambda: make_mesh(3, 2),
        lambda: make_mesh(-1, 3),
        lambda: split_batches(make_mesh(), "flow", read_config(odd).stage("flow")),
    ):
        try:
            attempt()
        except UserError as error:
            refusals.append(str(error))
    return refusals


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {"training": training(folder), "sampling": sampling(folder)}
    found |= {"batches": batches(), "micro_batches": micro_batches()}
    print(json.dumps(found | {"refusals": refusals()}))
