"""Compiler options for programs that are mostly transformer."""

from functools import lru_cache

import jax

# XLA on CPU hands matmuls and reductions to YNNPACK. Its reductions are several times faster than
# XLA's own loops, its matmuls slower than the Eigen ones it replaces: keep the reductions only.
_REDUCTIONS_ONLY = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


@lru_cache(maxsize=1)
def compiler_options() -> dict[str, str]:
    """For `jax.jit(..., compiler_options=compiler_options())`: quick matmuls on CPU, else empty.

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
