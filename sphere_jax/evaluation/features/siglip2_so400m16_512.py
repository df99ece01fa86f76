"""SigLIP 2 So400m/16 at 512 pixels, as FDr^6 has it for images of 512."""

from sphere_jax.evaluation.features.siglip2_so400m16 import SigLIP2


class SigLIP2At512(SigLIP2):
    weights = "siglip2_so400m16_512"
    side = 512


FEATURES = SigLIP2At512("siglip2_so400m16_512")
