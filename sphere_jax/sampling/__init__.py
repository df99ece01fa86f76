"""Sampling: times, noise, guidance, solvers, and `sample`, which combines them."""

from sphere_jax.sampling.adaptive import require_diffrax
from sphere_jax.sampling.few_step import FewSteps, decode_rounds, denoise_rounds, first_noise
from sphere_jax.sampling.guidance import (
    Guidance,
    auto_guided_velocity,
    guided,
    guided_velocity,
    segments,
)
from sphere_jax.sampling.noise import folded, noise_of, sample_keys, sample_noise
from sphere_jax.sampling.refinement import Refinement, mix, refine_steps
from sphere_jax.sampling.sampler import Sampler, nfe, sample, unfit_solver
from sphere_jax.sampling.solvers import (
    SOLVERS,
    advance,
    euler,
    heun,
    initial_state,
    midpoint,
    multistep,
)
from sphere_jax.sampling.stochastic import euler_maruyama
from sphere_jax.sampling.times import (
    dimension_shift,
    sample_times,
    sde_time_grid,
    shift,
    stratified,
    time_grid,
)

__all__ = [
    "SOLVERS",
    "FewSteps",
    "Guidance",
    "Refinement",
    "Sampler",
    "advance",
    "auto_guided_velocity",
    "decode_rounds",
    "denoise_rounds",
    "dimension_shift",
    "euler",
    "euler_maruyama",
    "first_noise",
    "folded",
    "guided",
    "guided_velocity",
    "heun",
    "initial_state",
    "midpoint",
    "mix",
    "multistep",
    "nfe",
    "noise_of",
    "refine_steps",
    "require_diffrax",
    "sample",
    "sample_keys",
    "sample_noise",
    "sample_times",
    "sde_time_grid",
    "segments",
    "shift",
    "stratified",
    "time_grid",
    "unfit_solver",
]
