"""One mesh of two axes: `data` splits the batch, `fsdp` splits the batch and the parameters too.

A single CPU is the 1 x 1 mesh of the same program that a pod runs.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sphere_jax.common.errors import UserError

BATCH_AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, devices=None) -> Mesh:
    """Mesh (data, fsdp) over all devices; `data=-1` uses all that `fsdp` leaves.

    Raises:
      UserError: the product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if data == -1:
        data = max(count // fsdp, 1)
    if data * fsdp != count:
        raise UserError(
            f"config.mesh asks for {data} x {fsdp} devices but there are {count}; "
            "set config.mesh.data and config.mesh.fsdp so that their product matches."
        )
    # Auto axes: the compiler propagates shardings from the arguments (GSPMD style).
    return jax.make_mesh((data, fsdp), BATCH_AXES, (AxisType.Auto,) * 2, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over every device."""
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def tree_shardings(mesh: Mesh, tree, smallest: int = 2**14):
    """FSDP: every array of at least `smallest` elements is split along its largest axis that the
    `fsdp` axis divides; the rest is replicated. Depends on shapes alone, so parameters, EMA and
    optimizer moments of one shape are sharded alike.
    """
    size = mesh.shape["fsdp"]

    def rule(leaf) -> NamedSharding:
        shape = np.shape(leaf)
        axes = [i for i, n in enumerate(shape) if n % size == 0]
        if size == 1 or not axes or np.prod(shape, dtype=np.int64) < smallest:
            return replicated(mesh)
        axis = max(axes, key=lambda i: (shape[i], i))
        return NamedSharding(mesh, P(*(None,) * axis, "fsdp"))

    return jax.tree.map(rule, tree)


def check_batches(mesh: Mesh, stage: str, settings) -> None:
    """Raises UserError unless the batches and micro-batches of a stage split evenly over the
    devices; `settings` has `batch_size` and `accumulate`.
    """
    devices, batch = mesh.devices.size, settings.batch_size
    micro = batch // settings.accumulate
    for name, size in (("batch_size", batch), ("batch_size/accumulate", micro)):
        if size % devices:
            raise UserError(
                f"config.{stage}.{name}={size} must be a multiple of the mesh's {devices} devices; "
                f"try {-(-size // devices) * devices}."
            )


def put_global(mesh: Mesh, tree, shardings):
    """Host arrays (the same on every process) to sharded device arrays.

    Anything with a shape that can be indexed, as a tensor in a file, is read block by block: each
    process reads only what its devices hold.
    """

    def put(x, sharding):
        x = x if hasattr(x, "shape") and hasattr(x, "__getitem__") else np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree, shardings)
