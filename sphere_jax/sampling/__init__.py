"""Sampling: times, noise, guidance, solvers, and the one function that joins them."""

from sphere_jax.sampling.guidance import Guidance, guided_velocity, segments
from sphere_jax.sampling.noise import sample_noise
from sphere_jax.sampling.sampler import Sampler, nfe, sample
from sphere_jax.sampling.solvers import SOLVERS, euler, heun, midpoint
from sphere_jax.sampling.times import sample_times, shift, time_grid

__all__ = [
    "SOLVERS",
    "Guidance",
    "Sampler",
    "euler",
    "guided_velocity",
    "heun",
    "midpoint",
    "nfe",
    "sample",
    "sample_noise",
    "sample_times",
    "segments",
    "shift",
    "time_grid",
]
