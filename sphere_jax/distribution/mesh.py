"""The mesh: `data` splits the batch, `fsdp` splits the batch and the parameters too.

With `zero`, the train state is split over `data` as well. A third axis, `tensor`, is there where a
config asks for it: it splits the batch and the parameters as `fsdp` does, but in stacks of layers
that can be split its devices hold the same examples and a part of each layer
(`distribution/placement.py`). A single CPU is the 1 x 1 mesh of the same program that a pod runs.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sphere_jax.common.errors import UserError

SMALLEST = 2**14  # elements of an array that is split
AUTOMATIC_FSDP = 16  # a row of a v5e pod; all GPUs of a host


def make_mesh(data: int = -1, fsdp: int = 1, devices=None, *, tensor: int = 1) -> Mesh:
    """Mesh (data, fsdp) over all devices, or (data, fsdp, tensor) where `tensor` is not 1;
    `data=-1` uses all that the others leave, and `fsdp=0` as many as divide both them and
    AUTOMATIC_FSDP.

    Raises:
      UserError: the product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = max(len(devices) // tensor, 1)
    if fsdp == 0:
        fsdp = math.gcd(count if data == -1 else max(count // max(data, 1), 1), AUTOMATIC_FSDP)
    if data == -1:
        data = max(count // fsdp, 1)
    sizes = {"data": data, "fsdp": fsdp} | ({"tensor": tensor} if tensor > 1 else {})
    if math.prod(sizes.values()) != len(devices):
        raise UserError(
            f"config.mesh asks for {' x '.join(map(str, sizes.values()))} devices but there are "
            f"{len(devices)}; set config.mesh.data, fsdp and tensor so that their product matches."
        )
    # Auto axes: the compiler propagates shardings from the arguments (GSPMD style).
    shape, names, types = tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * len(sizes)
    try:
        return jax.make_mesh(shape, names, types, devices=devices)
    except NotImplementedError:  # an axis is a part of a row of chips, which JAX does for v5e alone
        chips = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(chips, names, axis_types=types)


def configured_mesh(options: Any, devices=None) -> Mesh:
    """The mesh that `config.mesh`, these options, asks for, over all devices or those given."""
    return make_mesh(options.data, options.fsdp, devices, tensor=options.tensor)


def platform_of(mesh: Mesh) -> str:
    """ "cpu", "gpu" or "tpu": of the devices that programs for `mesh` are compiled for."""
    return mesh.devices.flat[0].platform


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over every device."""
    return NamedSharding(mesh, P(mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def tree_shardings(mesh: Mesh, tree, zero: bool = False):
    """The sharding of every array of a tree by `spec_of`, which depends on shapes alone:
    parameters, EMA and optimizer moments of one shape are sharded alike.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, spec_of(mesh, np.shape(leaf), zero)), tree)


def shapes_on(mesh: Mesh, tree, zero: bool = False):
    """Of arrays, or of their shapes: shapes with the shardings of `tree_shardings`."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        tree_shardings(mesh, tree, zero),
    )


def bytes_on_device(tree) -> int:
    """What one device holds of arrays, or of shapes with shardings."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended)
        size = math.prod(leaf.sharding.shard_shape(leaf.shape))
        total += size * (4 if is_key else leaf.dtype.itemsize)
    return total


def spec_of(mesh: Mesh, shape: tuple[int, ...], zero: bool = False) -> P:
    """FSDP: an array of at least SMALLEST elements is split along its largest axis that the `fsdp`
    axis divides; with `zero`, what is left of it along the largest that `data` divides, too. The
    rest is replicated. `tensor` comes first, and of equal axes takes the first: so it splits the
    hidden features of a feed-forward and the rows of a square projection, as their layers do.
    """
    left, axes = list(shape), [()] * len(shape)
    if math.prod(shape) < SMALLEST:
        return P()
    for name in ("tensor", "fsdp", "data") if zero else ("tensor", "fsdp"):
        size, later = mesh.shape.get(name, 1), -1 if name == "tensor" else 1
        fitting = [i for i, n in enumerate(left) if size > 1 and n % size == 0]
        if fitting:
            axis = max(fitting, key=lambda i, later=later: (left[i], later * i))
            left[axis] //= size
            axes[axis] = (*axes[axis], name)
    while axes and not axes[-1]:
        axes.pop()
    return P(*(names[0] if len(names) == 1 else names or None for names in axes))


def split_batches(mesh: Mesh, stage: str, options):
    """The options of a stage, with as many micro-batches as `most_per_device` needs, or as come
    nearest to it.

    Raises UserError unless batches and micro-batches split evenly over the devices.
    """
    devices, batch, multiple = mesh.devices.size, options.batch_size, options.micro_multiple
    micro = batch // options.accumulate
    for name, size in (("batch_size", batch), ("batch_size/accumulate", micro)):
        if size % devices:
            raise UserError(
                f"config.{stage}.{name}={size} must be a multiple of the mesh's {devices} devices; "
                f"try {-(-size // devices) * devices}."
            )
    if options.most_per_device == 0:
        return options
    even = [
        parts
        for parts in range(options.accumulate, batch // devices + 1, options.accumulate)
        if batch % (parts * devices) == 0 and batch // parts % multiple == 0
    ]
    enough = [parts for parts in even if batch // parts <= options.most_per_device * devices]
    return dataclasses.replace(options, accumulate=enough[0] if enough else even[-1])


def put_global(mesh: Mesh, tree, shardings):
    """Host arrays (the same on every process) to sharded device arrays.

    Anything with a shape that can be indexed, as a tensor in a file, is read block by block: each
    process reads only what its devices hold.
    """

    def put(x, sharding):
        x = x if hasattr(x, "shape") and hasattr(x, "__getitem__") else np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree, shardings)
