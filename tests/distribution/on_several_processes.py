"""One of several processes with four devices together, run by test_shared_checkpoints.py: FOLDER.

Prints what it found as JSON, in its last line.
"""

import json
from pathlib import Path

import jax
import numpy as np

from sphere_jax.cli import joins_processes, run_command
from sphere_jax.common.processes import barrier, start_processes
from sphere_jax.data.pipeline import Batches
from sphere_jax.data.source import Source
from sphere_jax.distribution.mesh import (
    batch_sharding,
    make_mesh,
    put_global,
    replicated,
    tree_shardings,
)
from sphere_jax.training.checkpoints import Checkpoints
from sphere_jax.training.shared_reads import spread

TREE = {
    "large": np.random.default_rng(0).normal(size=(256, 512)).astype(np.float32),
    "odd": np.arange(7, dtype=np.float32),
}


def on(mesh, shardings):
    return {item: put_global(mesh, TREE, shardings) for item in ("params", "ema")}


def shapes(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def same(state) -> bool:
    """Whether every shard here holds what was saved."""
    return all(
        np.array_equal(shard.data, TREE[name][shard.index])
        for item in ("params", "ema")
        for name, array in state[item].items()
        for shard in array.addressable_shards
    )


def labels_read(mesh) -> dict:
    """By this process, of five batches of 8 from a state of another number of processes."""
    read = []

    class Noted(Source):
        def stored(self, indices, mirrored=None):
            read.append(indices.tolist())
            return super().stored(indices, mirrored)

    labels = np.arange(20, dtype=np.int32)
    batches = Batches(Noted({"labels": labels}), 8, 0, batch_sharding(mesh))
    batches.set_state({"next_index": 3})
    taken = [next(batches)["labels"] for _ in range(5)]
    held = [[label for s in x.addressable_shards for label in s.data.tolist()] for x in taken]
    return {"read": read[:5], "held": held, "state": batches.state}


@joins_processes
def main(argv: list[str]) -> None:
    start_processes()
    (folder,) = argv
    print(json.dumps(found_in(Path(folder))), flush=True)


def found_in(folder: Path) -> dict:
    mesh = make_mesh(2, 2)
    whole = jax.tree.map(lambda _: replicated(mesh), TREE)
    states = {"replicated": on(mesh, whole), "sharded": on(mesh, tree_shardings(mesh, TREE))}
    found = {}
    for name, state in states.items():
        with Checkpoints(folder / name) as checkpoints:
            for step in (3, 6):
                checkpoints.save(step, state, {"at": step})
    barrier("saved")
    for name in states:  # each is read onto the other's shardings as well
        for target, state in states.items():
            checkpoints = Checkpoints(folder / name)
            restored, data = checkpoints.restore(checkpoints.newest_whole(), shapes(state))
            alike = jax.tree.map(lambda a, b: a.sharding == b.sharding, restored, state)
            found[f"{name} to {target}"] = same(restored) and all(jax.tree.leaves(alike))
            found[f"data of {name}"] = data

    read = spread(shapes(states["replicated"]))["params"]["large"]
    parts = read.sharding.addressable_devices_indices_map(read.shape).values()
    sizes = [TREE["large"][part].size for part in parts]
    found["read here"] = sum(sizes) / TREE["large"].size

    # This process has not seen the newest step, or it alone has: the first one's view counts.
    for blind in (0, 1):
        checkpoints = Checkpoints(folder / "sharded")
        if jax.process_index() == blind:
            checkpoints._checksums.file = lambda step: folder / "none" if step == 6 else folder
        found[f"latest, {blind} is blind"] = checkpoints.latest()

    found["input"] = labels_read(mesh)

    # A damaged file is noticed by the process whose share it is, and all go back.
    if jax.process_index() == 0:
        files = (folder / "sharded" / "6" / "params").rglob("*")
        file = max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    barrier("damaged")
    found["whole"] = Checkpoints(folder / "sharded").newest_whole()
    return found


if __name__ == "__main__":
    run_command(main)
