"""From the groups of a config to a tokenizer, a space, a sampler and the methods of its stages."""

import dataclasses
from functools import cache

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import (
    Config,
    ConvVAETokenizer,
    Data,
    DecoderStage,
    PrecomputedTokenizer,
    SphereEncoderTokenizer,
)
from sphere_jax.config.options import Tokenizer as TokenizerSettings
from sphere_jax.geometry.spaces import Space, make_space
from sphere_jax.losses.perceptual import perceptual_loss
from sphere_jax.methods.autoencoding import VAETraining
from sphere_jax.methods.base import Method
from sphere_jax.methods.decoder_finetuning import DecoderFinetuning
from sphere_jax.methods.flow import Flow, time_shift
from sphere_jax.methods.sphere_encoder import SphereEncoderTraining
from sphere_jax.methods.sphere_latent import SphereLatent
from sphere_jax.models.build import latent_network
from sphere_jax.models.discriminator import (
    Discriminator,
    dino_discriminator,
    patch_discriminator,
)
from sphere_jax.sampling import FewSteps, Guidance, Sampler
from sphere_jax.tokenizers import ConvVAE, Precomputed, SphereEncoder, Tokenizer
from sphere_jax.tokenizers.pretrained import build_pretrained


def build_tokenizer(config: Config) -> Tokenizer:
    """Raises UserError for sizes that do not fit each other."""
    return _build_tokenizer(config.data, config.tokenizer)


@cache  # it takes seconds, and is asked for by the stages, the sampler and the plan
def _build_tokenizer(data: Data, settings: TokenizerSettings) -> Tokenizer:
    if isinstance(settings, PrecomputedTokenizer):
        return Precomputed(tuple(settings.latent_shape))
    if isinstance(settings, ConvVAETokenizer):
        return ConvVAE.build(data, settings)
    if isinstance(settings, SphereEncoderTokenizer):
        return SphereEncoder.build(data, settings)
    return build_pretrained(data, settings)


def build_space(config: Config, latent_shape) -> Space:
    """Raises UserError for a radius that the sphere cannot have."""
    space = config.space
    try:
        return make_space(space.path, space.sphere, space.radius, latent_shape, space.retraction)
    except ValueError as error:
        raise UserError(f"config.space: {error}.") from error


def build_sampler(config: Config) -> Sampler | FewSteps:
    """That of the stage that generates."""
    s, settings = config.sampler, config.stage(config.generator)
    if settings.method == "flow":
        guidance = Guidance(s.guidance, s.guidance_low, s.guidance_high, s.auto_guidance)
        shift = time_shift(settings, build_tokenizer(config).latent_shape)
        return Sampler(s.solver, s.steps, shift, s.t_end, guidance, s.decode_radius)
    place = s.guidance_at if settings.method == "sphere_encoder" else ""
    return FewSteps(s.steps, s.guidance, s.schedule, s.strength, s.share_noise, place)


def build_method(config: Config, name: str) -> Method:
    """The method of stage `name`: pure functions, nothing allocated. Raises UserError."""
    settings, tokenizer = config.stage(name), build_tokenizer(config)
    if config.data.source == "cache" and hasattr(settings, "encode"):  # nothing is left to encode
        settings = dataclasses.replace(settings, encode="once")
    classes = config.data.num_classes
    if settings.method == "sphere_encoder":
        # Trained as a tokenizer for another generator, its previews take published steps.
        own = config.generator == name
        sampler = build_sampler(config) if own else FewSteps(4, guidance_at="combo")
        perceptual = perceptual_loss(bool(settings.lpips), bool(settings.convnext))
        return SphereEncoderTraining(tokenizer, classes, settings, sampler, perceptual)
    space = build_space(config, tokenizer.latent_shape)
    if settings.method == "vae":
        return VAETraining(tokenizer, settings)
    if settings.method == "decoder":
        perceptual = perceptual_loss(bool(settings.lpips), False)
        judge = _discriminator(settings, config.data.channels)
        return DecoderFinetuning(tokenizer, space, settings, perceptual, judge, config.evaluation)
    network = latent_network(config.model, tokenizer.latent_shape, classes)
    kind = Flow if settings.method == "flow" else SphereLatent
    return kind(tokenizer, space, network, classes, settings, build_sampler(config))


@cache
def _discriminator(settings: DecoderStage, channels: int) -> Discriminator | None:
    if settings.adversarial_weight == 0:
        return None
    return (
        dino_discriminator() if settings.discriminator == "dino" else patch_discriminator(channels)
    )
