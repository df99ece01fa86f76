"""Inception-v3 as pytorch-fid has it, with its resizing: the Fréchet distance that is called FID."""

from sphere_jax.evaluation.features.published import Published
from sphere_jax.models.inception import inception_input


class InceptionFID(Published):
    """The 2048 features before the classifier."""

    semantic = False  # published for distributions, not for pairs of images
    distance_title = "FID (Inception-v3, pytorch-fid's resizing)"

    def prepare(self, images):
        return inception_input(images)

    def read(self, module, x):
        return module.features(x)["2048"]


FEATURES = InceptionFID("inception_fid")
