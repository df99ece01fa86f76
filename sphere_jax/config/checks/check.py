"""What all checks of a config share."""

from sphere_jax.common.errors import UserError

ON_LATENTS = ("flow", "sphere_latent")  # methods that train without images
LATENT_SOURCES = ("latents", "cache")


def check(holds: bool, sentence: str) -> None:
    """Raises UserError with the sentence unless it holds."""
    if not holds:
        raise UserError(sentence)
