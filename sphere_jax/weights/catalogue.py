"""Every published network that can be loaded here, by its name."""

from functools import cache

from sphere_jax.weights.published.entry import Published


@cache
def catalogue() -> dict[str, Published]:
    """All of them, grouped."""
    # All networks and layouts: seconds that only those who look something up should pay.
    from sphere_jax.weights.published import features, generators, tokenizers

    entries = (*tokenizers.published(), *features.published(), *generators.published())
    return {entry.name: entry for entry in entries}
