"""Inception-v3 with the resizing of TensorFlow 1: that of the original FID and Inception Score, of
the ADM suite, torch-fidelity and torchmetrics, and of clean-fid's mode "legacy_tensorflow"."""

from sphere_jax.evaluation.features.inception import InceptionFeatures

FEATURES = InceptionFeatures("inception_tensorflow", "tensorflow", "TensorFlow's")
