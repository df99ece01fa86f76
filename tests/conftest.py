"""Tests run strict: no silent rank promotion, and compiled programs are kept between runs.

They compile many small programs that run once, so LLVM is told not to optimise: 40 % less processor
time. XLA_FLAGS that are set, even to nothing, are left alone.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.get("SPHERE_JAX_CACHE", str(Path(tempfile.gettempdir()) / "sphere_jax_test_cache")),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
