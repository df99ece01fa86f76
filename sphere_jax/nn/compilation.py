"""Compiler options that matter on CPU; empty elsewhere."""

from functools import lru_cache

import jax

# XLA on CPU hands matmuls and reductions to YNNPACK. Its reductions are several times faster than
# XLA's own loops, its matmuls slower than the Eigen ones it replaces: keep the reductions only.
_REDUCTIONS_ONLY = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


@lru_cache(maxsize=1)
def quick_products() -> dict[str, str]:
    """For programs that are mostly matrix products or forward convolutions: quick ones on CPU.

    Use as `jax.jit(..., compiler_options=quick_products())`.

    Empty, too, where this version of jaxlib does not know the option, which is experimental.
    Numbers in docs/performance.md.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_REDUCTIONS_ONLY).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _REDUCTIONS_ONLY


def run_once_options() -> dict[str, int]:
    """For programs that run once, such as an initialisation: on CPU their random draws take seconds
    to optimise and milliseconds to run."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
