"""Tests run strict: no silent rank promotion, and calls are checked against their signatures.

Compiled programs are cached between runs. Tests compile many small programs that run once, so LLVM
does not optimise and XLA builds no fused kernels by MLIR, whose cost is fixed: compiling
takes a third of the time. XLA_FLAGS that are set, even to nothing, are left alone.
"""

import gc
import os
import tempfile
from importlib import metadata
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "SPHERE_JAX_LISTINGS", str(Path(tempfile.gettempdir()) / "sphere_jax_test_listings")
)
# From 0.11 on jaxlib lacks the switch between emitters, and ends the process over a flag it lacks.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * metadata.version("jaxlib").startswith("0.10.")
    + " --xla_cpu_parallel_codegen_split_count=1",
)

from sphere_jax.common.allocator import settings

os.environ.update(settings(os.environ))  # as commands have it: of workers and of what tests start

import jax
import pytest
from jaxtyping import install_import_hook
from signatures import CHECKED, CHECKER

install_import_hook(CHECKED, CHECKER)  # before any of them is imported

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "tensorfloat32")  # as commands: one cache
jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.get("SPHERE_JAX_CACHE", str(Path(tempfile.gettempdir()) / "sphere_jax_test_cache")),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)

# Files whose fixtures train runs. With --dist=loadfile (groups of tests are not run together by
# pytest-xdist 3.8 under pytest 9.2) they start first, so that no worker idles at the end.
LONGEST = (
    "test_devices",
    "test_few_step_run",
    "test_compare",
    "test_run",
    "test_pretrained_run",
    "test_prepare",
    "test_sweeping",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes():
    """With several workers, NumPy and PyTorch get one thread each: idle ones would spin on a core
    that another worker needs. Set here because workers import NumPy before this file."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish():
    """Objects of imports and of collection live to the end, so the collector skips them. It also
    runs less often: tracing makes many objects and few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)  # stable


@pytest.fixture(autouse=True, scope="session")
def no_measured_peak():
    """Runs here do not time matrix products first, for the MFU that they print."""
    from sphere_jax.runs import stages

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "measure_peak_flops", lambda dtype: 1e9)
        yield
