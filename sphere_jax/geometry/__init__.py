"""Spheres: functions on unit vectors (`sphere`) and the spaces latents live in (`spaces`)."""

from sphere_jax.geometry import sphere
from sphere_jax.geometry.spaces import (
    Euclidean,
    GlobalSphere,
    Polar,
    ProjectedData,
    ProjectedEuclidean,
    TokenSphere,
    make_space,
)

__all__ = [
    "Euclidean",
    "GlobalSphere",
    "Polar",
    "ProjectedData",
    "ProjectedEuclidean",
    "TokenSphere",
    "make_space",
    "sphere",
]
