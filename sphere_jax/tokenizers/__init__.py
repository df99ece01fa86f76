"""Images to latents and back.

A tokenizer is a frozen dataclass of pure functions: `encode(params, images)` to latents (B, h, w,
d), `decode(params, latents)` to float images; `parts` names its parameters among a run's artifacts,
`latent_shape` is (h, w, d) and `image_shape` (H, W, C), or None where it has no images;
`last_layer` names that of the decoder in its parameters.
"""

from sphere_jax.tokenizers.conv_vae import ConvVAE
from sphere_jax.tokenizers.kl_vae import KLVAE
from sphere_jax.tokenizers.precomputed import Precomputed
from sphere_jax.tokenizers.rae import RAE
from sphere_jax.tokenizers.sphere_encoder import SphereEncoder
from sphere_jax.tokenizers.tiny_vae import TinyVAE

Pretrained = KLVAE | TinyVAE | RAE
Tokenizer = ConvVAE | Precomputed | SphereEncoder | Pretrained

__all__ = [
    "KLVAE",
    "RAE",
    "ConvVAE",
    "Precomputed",
    "Pretrained",
    "SphereEncoder",
    "TinyVAE",
    "Tokenizer",
]
