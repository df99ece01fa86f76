"""What no single value of a config shows: options that must fit each other."""

from sphere_jax.config.checks.check import LATENT_SOURCES, ON_LATENTS
from sphere_jax.config.checks.sampling import check_evaluation, check_sampler
from sphere_jax.config.checks.stages import check_stage
from sphere_jax.config.checks.tokenizers import check_tokenizer
from sphere_jax.config.options import Config

__all__ = ["LATENT_SOURCES", "ON_LATENTS", "check_together"]


def check_together(config: Config) -> None:
    """Raises UserError, one sentence, for the first thing that does not go with another."""
    check_tokenizer(config)
    for name, stage in config.groups.items():
        check_stage(config, name, stage)
    check_sampler(config)
    check_evaluation(config)
