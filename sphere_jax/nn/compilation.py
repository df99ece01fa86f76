"""Compiler options that matter on CPU; empty elsewhere."""

from functools import lru_cache

import jax

# XLA on CPU uses YNNPACK for matmuls and reductions. Its reductions are several times faster than
# the loops of XLA, its matmuls slower than those of Eigen: use it for reductions only.
_REDUCTIONS_ONLY = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


@lru_cache
def quick_products(platform: str = "") -> dict[str, str]:
    """Options for programs that are mostly matrix products or forward convolutions: faster on CPU.

    Use as `jax.jit(..., compiler_options=quick_products())`. Also empty if this version of jaxlib
    does not have the option, which is experimental. Measurements: docs/performance.md. `platform`
    is that of the devices, by default JAX's own.
    """
    if (platform or jax.default_backend()) != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_REDUCTIONS_ONLY).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _REDUCTIONS_ONLY


def run_once_options() -> dict[str, int]:
    """Options for programs that run once, such as an initialisation: on CPU their random number
    generators take seconds to optimise and milliseconds to run."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
