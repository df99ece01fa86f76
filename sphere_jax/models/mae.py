"""The encoder of a masked autoencoder (MAE, 2111.06377): ViT-L/16 on whole images."""

from sphere_jax.models.dino import DINO
from sphere_jax.models.vit import SIZES

# Arguments of `DINO`. Positions are resized as in timm, where the grid is not 14 x 14.
KIND = dict(zip(("width", "depth", "heads"), SIZES["l"], strict=True)) | dict(
    patch=16, grid=14, layer_scale=False, offset=0.0, antialias=True
)


class MAE(DINO):
    """`models.vit.VisionTransformer` of `KIND`, called with ImageNet-normalised images. The class
    token behind the final norm is its feature; the decoder of its training is not here."""

    def __init__(self, **options):
        super().__init__(**KIND | options)
