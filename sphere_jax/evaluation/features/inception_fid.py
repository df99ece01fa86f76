"""Inception-v3 as pytorch-fid has it, with its resizing: its Fréchet distance is called FID."""

from sphere_jax.evaluation.features.inception import InceptionFeatures

FEATURES = InceptionFeatures("inception_fid", "pytorch_fid", "pytorch-fid's")
