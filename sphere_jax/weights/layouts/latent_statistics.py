"""Statistics of latents over a data set, published beside a tokenizer: RAE's and VA-VAE's."""

import numpy as np

from sphere_jax.nn.functional import Network
from sphere_jax.weights.tensors import Layout, Source, Turn

SMALL = 1e-5  # what the authors of RAE add to the variance

channels_last = Turn(
    lambda x: x.reshape(x.shape[-3:]).transpose(1, 2, 0)
)  # (1, d, h, w), (d, h, w)
squared = Turn(lambda x: channels_last.to_ours(np.square(np.float32(x)) - SMALL))
channels = Turn(lambda x: x.reshape(-1))  # (1, d, 1, 1)


def layouts(network: Network) -> list[Layout]:
    """Of a `LatentStatistics` of (h, w, d), "mean" and "var", or of (d,), "mean" and "std".

    RAE's authors write "mean" and "var", for `(z - mean) / sqrt(var + 1e-5)`. In the file of
    diffusers they are "_latents_mean" and "_latents_std", the root of `var + 1e-5` (to which
    diffusers adds another 1e-5 when it divides). VA-VAE's authors write "mean" and "std".
    """
    if hasattr(network.module, "std"):
        leaves = {name: Source(name, channels) for name in ("mean", "std")}
        return [Layout("LightningDiT", leaves)]
    authors = {name: Source(name, channels_last) for name in ("mean", "var")}
    diffusers = {
        "mean": Source("_latents_mean", channels_last),
        "var": Source("_latents_std", squared),
    }
    return [Layout("RAE", authors), Layout("diffusers", diffusers, ignored=".*")]
