"""Accelerators that programs are compiled for: their published numbers, and their topologies."""

import dataclasses
import importlib.util
import os
import re

import jax

from sphere_jax.common.errors import UserError, first_line


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published numbers of one chip (cloud.google.com/tpu/docs/system-architecture).

    memory: bytes that the compiler leaves to programs, as its messages have them. peak: bfloat16
    FLOP/s. bandwidth: of HBM, bytes/s. links: of all links to other chips together, bytes/s, both
    directions. clock: Hz, `peak` over the size of its matrix units.
    """

    name: str
    memory: float
    peak: float
    bandwidth: float
    links: float
    clock: float


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 15.75 * 2**30, 197e12, 819e9, 200e9, 1.50e9),
        Chip("v5p", 95.73 * 2**30, 459e12, 2765e9, 600e9, 1.75e9),
        Chip("v6e", 31.24 * 2**30, 918e12, 1640e9, 448e9, 1.75e9),
    )
}


def devices_of(topology: str) -> tuple[list, Chip | None]:
    """The devices of "v5e:4x4" (compiled for only) or "cpu:8" (of this computer), and their chip.

    To be called before JAX has any devices: it sets how many CPU devices there are.

    Raises:
      UserError: an unknown topology, or no compiler for it.
    """
    name, _, shape = topology.partition(":")
    jax.config.update("jax_platforms", "cpu")  # nothing here runs on an accelerator
    if name == "cpu" and re.fullmatch(r"[1-9]\d{0,2}", shape):
        jax.config.update("jax_num_cpu_devices", int(shape))
        return jax.devices("cpu"), None
    if name not in CHIPS or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
        raise UserError(
            f"--topology={topology} is not known; give cpu:8, or a shape of one of "
            f"{', '.join(CHIPS)}: v5e:4x4, v5p:2x2x4, v6e:16x16."
        )
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={topology} needs the compiler for TPUs: pip install libtpu "
            "(--topology=cpu:8 needs nothing)."
        )
    # libtpu otherwise asks the metadata server of a cloud which TPU this is, warns, and locks the
    # TPU that it looks for.
    for variable, value in {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    }.items():
        os.environ.setdefault(variable, value)
    os.environ.pop("XLA_FLAGS", None)  # libtpu ends the process over flags of CPUs that it lacks
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(topology, platform="tpu").devices), CHIPS[name]
    except Exception as error:  # libtpu has errors of its own for shapes that no pod has
        raise UserError(
            f"--topology={topology}: the compiler knows no such pod "
            f"({first_line(error, 120)}); try v5e:4x4, v5p:2x2x4 or v6e:16x16."
        ) from None
