"""Inception-v3 with the resizing of clean-fid's mode "clean": Pillow's bicubic filter."""

from sphere_jax.evaluation.features.inception import InceptionFeatures

FEATURES = InceptionFeatures("inception_clean", "clean", "clean-fid's")
