"""Frozen tokenizers whose weights come from files: how options name them, and their loading."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Data, KLVAETokenizer, RAETokenizer, TinyVAETokenizer
from sphere_jax.models.kl_vae import KINDS as KL_KINDS
from sphere_jax.models.kl_vae import AutoencoderKL
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.models.tiny_vae import KINDS as TINY_KINDS
from sphere_jax.models.tiny_vae import TinyVAE as TinyVAENetwork
from sphere_jax.nn.functional import Network, Params
from sphere_jax.tokenizers.kl_vae import KLVAE
from sphere_jax.tokenizers.rae import RAE
from sphere_jax.tokenizers.tiny_vae import TinyVAE
from sphere_jax.weights.layouts import kl_vae, latent_statistics, rae, tiny_vae
from sphere_jax.weights.stored import Layouts, fingerprint_of, load_weights

Settings = KLVAETokenizer | TinyVAETokenizer | RAETokenizer


def build_pretrained(data: Data, settings: Settings) -> KLVAE | TinyVAE | RAE:
    """Raises UserError for an image size that the tokenizer does not take."""
    dtype = jnp.dtype(settings.compute_dtype)
    try:
        if isinstance(settings, KLVAETokenizer):
            whiten = bool(settings.pretrained_statistics)
            return KLVAE.build(data.image_size, settings.kind, settings.packed, dtype, whiten)
        if isinstance(settings, TinyVAETokenizer):
            whiten = bool(settings.pretrained_statistics)
            return TinyVAE.build(data.image_size, settings.kind, dtype, whiten)
        return RAE.build(data.image_size, settings.decoder, settings.whiten, dtype)
    except ValueError as error:
        raise UserError(f"config.data.image_size: {str(error).rstrip('.')}.") from error


def load_pretrained(tokenizer: KLVAE | TinyVAE | RAE, settings: Settings) -> Params:
    """Its parameters by `parts`: leaves of a converted file, or numpy arrays.

    Raises:
      UserError: an option that names a file is empty, or the file is not what it should be.
    """
    if isinstance(settings, RAETokenizer):
        return _load_rae(tokenizer, settings)
    if isinstance(settings, KLVAETokenizer):
        kind = settings.kind
        name, layouts = kind if kind == "vavae" else f"{kind}_vae", kl_vae.layouts
        network = Network(lambda rngs: AutoencoderKL(**KL_KINDS[kind], rngs=rngs))
    else:
        name, layouts = settings.kind, tiny_vae.layouts
        network = Network(lambda rngs: TinyVAENetwork(*TINY_KINDS[settings.kind], rngs=rngs))
    found = _load("pretrained", settings.pretrained, name, network, layouts)
    if tokenizer.whiten:
        found["statistics"] = _channel_statistics(tokenizer, settings)
    return found


def latents_made_with(data: Data, settings: Settings) -> dict[str, Any]:
    """Every option that latents of images are a function of, and the fingerprints of the weights.

    Raises:
      UserError: a file of weights cannot be read.
    """
    found = {
        f"config.data.{name}": getattr(data, name)
        for name in ("image_size", "resize", "channels", "num_classes")
    }
    for name, value in dataclasses.asdict(settings).items():
        if name in ("compute_dtype", "decoder", "pretrained_decoder"):
            continue  # the first is rounding, the others read latents
        if name == "pretrained_statistics" and not value and isinstance(settings, TinyVAETokenizer):
            continue  # which caches made before there was that option do not name
        if name.startswith("pretrained"):
            name, value = f"{name} fingerprint", fingerprint_of(value) if value else ""
        found[f"config.tokenizer.{name}"] = value
    return found


def statistics_to_apply(
    data: Data, settings: Settings, made_with: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and standard deviation (d,) by which latents made with `made_with` are normalised to
    those of `settings`; None if they are not those of `settings` but for its statistics.

    Raises:
      UserError: a file of weights cannot be read.
    """
    given = not isinstance(settings, RAETokenizer) and settings.pretrained_statistics
    if not given:
        return None
    bare = dataclasses.replace(settings, pretrained_statistics="")
    if latents_made_with(data, bare) != made_with:
        return None
    tokenizer = build_pretrained(data, settings)
    found = _channel_statistics(tokenizer, settings)
    mean, std = (np.asarray(found[name]) for name in ("mean", "std"))
    times = tokenizer.latent_shape[-1] // len(mean)  # packed: neighbours of one channel
    return np.repeat(mean, times), np.repeat(std, times)


def pretrained_shapes(tokenizer: KLVAE | TinyVAE | RAE) -> Params:
    """Shapes of `load_pretrained`'s arrays, without a file."""
    found = {
        part: jax.eval_shape(getattr(tokenizer, part).init, jax.random.key(0))
        for part in ("encoder", "decoder")
    }
    if "statistics" in tokenizer.parts:
        shape, names = tokenizer.latent_shape, ("mean", "var")
        if not isinstance(tokenizer, RAE):
            d, names = _channels(tokenizer), ("mean", "std") if tokenizer.whiten else names
            shape = (d,) if tokenizer.whiten else (4 * d,)
        found["statistics"] = dict.fromkeys(names, jax.ShapeDtypeStruct(shape, jnp.float32))
    return found


def _channel_statistics(tokenizer: KLVAE | TinyVAE, settings: Settings) -> Params:
    """What `pretrained_statistics` holds: mean and std of the channels, unpacked."""
    name, shape = f"{settings.kind}_statistics", (_channels(tokenizer),)
    return _load_statistics(settings.pretrained_statistics, name, shape, "std")


def _channels(tokenizer: KLVAE | TinyVAE) -> int:
    """Of the latents, unpacked."""
    return tokenizer.latent_shape[-1] // (4 if getattr(tokenizer, "packed", False) else 1)


def _load_rae(tokenizer: RAE, settings: RAETokenizer) -> Params:
    encoder, decoder = settings.pretrained_encoder, settings.pretrained_decoder
    name = f"rae_decoder_{settings.decoder}_{tokenizer.image_shape[0]}"
    found = {
        "encoder": _load(
            "pretrained_encoder", encoder, "rae_encoder", tokenizer.encoder, rae.encoder_layouts
        ),
        "decoder": _load("pretrained_decoder", decoder, name, tokenizer.decoder, rae.layouts),
    }
    if settings.whiten:
        side = tokenizer.image_shape[0]
        found["statistics"] = _load_statistics(
            settings.pretrained_statistics, f"rae_statistics_{side}", tokenizer.latent_shape, "var"
        )
    return found


def _load_statistics(path: str, name: str, shape: tuple[int, ...], second: str) -> Params:
    network = Network(lambda rngs: LatentStatistics(shape, second, rngs=rngs))
    return _load("pretrained_statistics", path, name, network, latent_statistics.layouts)


def _load(option: str, path: str, name: str, network: Network, layouts: Layouts) -> Params:
    if not path:
        raise UserError(
            f"config.tokenizer.{option} is empty; give it the file that python -m "
            f"sphere_jax.convert --network {name} --out F.safetensors writes."
        )
    return load_weights(path, name, network, layouts)
