"""One of two processes with two devices each, run by test_bucket.py: FOLDER gs://BUCKET/FOLDER.

Prints what it found as JSON, in its last line.
"""

import json
from pathlib import Path

import jax
import numpy as np

from sphere_jax.cli import joins_processes, run_command
from sphere_jax.common.processes import barrier, is_main_process, start_processes
from sphere_jax.distribution.mesh import make_mesh, put_global, tree_shardings
from sphere_jax.training.checkpoint_folder import open_folder
from sphere_jax.training.checkpoints import Checkpoints


@joins_processes
def main(argv: list[str]) -> None:
    start_processes()
    folder, store = argv
    print(json.dumps(found_in(Path(folder), store)), flush=True)


def found_in(folder: Path, store: str) -> dict:
    mesh = make_mesh(2, 2)
    tree = {"kernel": np.arange(2**15, dtype=np.float32).reshape(256, 128)}
    state = {"params": put_global(mesh, tree, tree_shardings(mesh, tree, True))}
    with Checkpoints(folder, 2, store) as checkpoints:
        for step in (3, 6):
            checkpoints.save(step, state, {"at": step})
    barrier("saved")

    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    checkpoints = Checkpoints(folder, 2, store)
    newest = checkpoints.newest_whole()
    restored, data = checkpoints.restore(newest, shapes)
    shards = restored["params"]["kernel"].addressable_shards
    same = len(shards) == 2 and all(
        np.array_equal(shard.data, tree["kernel"][shard.index]) for shard in shards
    )

    if is_main_process():
        file = next(iter((open_folder(folder, store) / "6" / "params" / "d").iterdir()))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    barrier("damaged")
    after = Checkpoints(folder, 2, store).newest_whole()
    return {"newest": newest, "same": same, "data": data, "after damage": after}


if __name__ == "__main__":
    run_command(main)
