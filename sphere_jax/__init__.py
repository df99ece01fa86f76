"""sphere_jax: image generators whose latents live on spheres, in JAX and Flax."""

__version__ = "0.1.0"
