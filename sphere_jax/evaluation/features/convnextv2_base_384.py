"""ConvNeXt V2-B at 384 pixels, as FDr^6 has it for images of 512."""

from sphere_jax.evaluation.features.convnextv2_base import ConvNeXtV2


class ConvNeXtV2At384(ConvNeXtV2):
    side = 384


FEATURES = ConvNeXtV2At384("convnextv2_base_384")
