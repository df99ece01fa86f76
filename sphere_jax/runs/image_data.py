"""The images of a run: its data's own, or those that a latent cache was made of."""

import dataclasses
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import Config, Data
from sphere_jax.data.latent_cache import read_index
from sphere_jax.data.sources import Split, load


def image_data(config: Config) -> Data:
    """The options of a run's images.

    Raises:
      UserError: precomputed latents have no images, or those of a cache are not where it says.
    """
    data, evaluation = config.data, config.evaluation
    if data.source == "latents":
        raise UserError(
            "This run's data are latents, which nothing can be scored against; draw "
            "sphere_jax.sample --out=F.npz and score --samples=F.npz against --reference=D.npz."
        )
    if data.source != "cache":
        return data
    stored = read_index(Path(data.path)).get("images", {})  # older caches do not say
    source = evaluation.data_source or stored.get("source", "")
    path = evaluation.data_path
    if not path and source == stored.get("source"):
        path = stored["path"]
    if not source:
        raise UserError(
            f"{data.path} does not say which images it holds the latents of; give "
            "--config.evaluation.data_source and --config.evaluation.data_path."
        )
    if path and source != "tfds" and not Path(path).exists():  # tfds: a name will do
        raise UserError(
            f"The images behind the latent cache {data.path} are not at {path}; say where they "
            "are by --config.evaluation.data_path."
        )
    return dataclasses.replace(data, source=source, path=path)


def images_of(config: Config, split: Split) -> Split:
    """The images of a run whose data are `split`, which may be their latents.

    Raises UserError as `image_data` does, and for other images than those of the latents.
    """
    if "images" in split.train.arrays:
        return split
    data = image_data(config)
    images, made_of = load(data), read_index(Path(config.data.path))["data"]
    for part, found in vars(images).items():
        if found.fingerprint != made_of[part]:
            raise UserError(
                f"{data.path or data.source} holds other images than those whose latents are in "
                f"{config.data.path}; give theirs by --config.evaluation.data_path."
            )
    return images
