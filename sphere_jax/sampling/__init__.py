"""Sampling: times, noise, guidance, solvers, and `sample`, which combines them."""

from sphere_jax.sampling.few_step import FewSteps, decode_rounds, denoise_rounds, first_noise
from sphere_jax.sampling.guidance import (
    Guidance,
    auto_guided_velocity,
    guided,
    guided_velocity,
    segments,
)
from sphere_jax.sampling.noise import noise_of, sample_keys, sample_noise
from sphere_jax.sampling.sampler import Sampler, nfe, sample
from sphere_jax.sampling.solvers import (
    SOLVERS,
    advance,
    euler,
    heun,
    initial_state,
    midpoint,
    multistep,
)
from sphere_jax.sampling.times import (
    dimension_shift,
    sample_times,
    shift,
    stratified,
    time_grid,
)

__all__ = [
    "SOLVERS",
    "FewSteps",
    "Guidance",
    "Sampler",
    "advance",
    "auto_guided_velocity",
    "decode_rounds",
    "denoise_rounds",
    "dimension_shift",
    "euler",
    "first_noise",
    "guided",
    "guided_velocity",
    "heun",
    "initial_state",
    "midpoint",
    "multistep",
    "nfe",
    "noise_of",
    "sample",
    "sample_keys",
    "sample_noise",
    "sample_times",
    "segments",
    "shift",
    "stratified",
    "time_grid",
]
