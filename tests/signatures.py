"""Packages, or modules, whose public functions have complete types, with the shapes of arrays.

Tests check them whenever a function is called, and under `jax.jit` when it is traced: see conftest.
"""

CHECKED = (
    "sphere_jax.geometry",
    "sphere_jax.sampling",
    "sphere_jax.nn",
    "sphere_jax.losses",
    "sphere_jax.evaluation",
    "sphere_jax.methods",
    "sphere_jax.training",
)
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # int is a float
