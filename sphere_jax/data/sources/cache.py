"""Latents that `sphere_jax.prepare latents` encoded, of every image and of its mirror image."""

import dataclasses
from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.config.checks import check
from sphere_jax.config.options import Config, DataOptions, source_of
from sphere_jax.data.cached_latents import PREPARE
from sphere_jax.data.class_names import Classes, read_classes
from sphere_jax.data.latent_cache import check_cache, check_moments, read_cache, read_index
from sphere_jax.data.source import DataSource, Source, Split


class Cache(DataSource):
    """A folder of shards (`data/latent_cache.py`), with the split of the images it was made of."""

    holds_images = False
    holds_flips = True
    made_of_images = True

    def check(self, config: Config) -> None:
        tokenizer = config.tokenizer_class
        check(
            not tokenizer.trained_by_run(config.tokenizer) and tokenizer.decodes,
            "config.data.source='cache' holds latents of a tokenizer whose weights are in files; "
            f"the weights of config.tokenizer.name='{config.tokenizer.name}' are not known "
            "beforehand.",
        )

    def classes(self, data: DataOptions) -> Classes:
        """Those of the images that were encoded, named by `classes.json` of the cache."""
        folder = Path(data.path)
        count = read_index(folder)["made_with"].get("config.data.num_classes", data.num_classes)
        return read_classes(folder, count) or (Classes(count) if count else super().classes(data))

    def load(self, data: DataOptions) -> Split:
        parts = {
            name: Source({"latents": latents, "labels": labels})
            for name, (latents, labels) in read_cache(Path(data.path)).items()
        }
        return Split(**parts)

    def load_for(self, config: Config) -> Split:
        """Normalised here if the latents were stored before there were statistics."""
        data, tokenizer, options = config.data, config.tokenizer_class, config.tokenizer
        check(
            data.path != "",
            "config.data.path is empty; give the folder that python -m sphere_jax.prepare latents "
            "wrote.",
        )
        folder = Path(data.path)
        made_with = read_index(folder)["made_with"]
        statistics = tokenizer.statistics_to_apply(data, options, made_with)
        if statistics is None:
            check_cache(folder, tokenizer.latents_made_with(data, options))
        if options.samples:
            check_moments(folder)
        mean, std = statistics or (0.0, 1.0)

        def as_used(part: Source) -> Source:
            latents = part.arrays["latents"]
            latents = dataclasses.replace(latents, mean=mean, std=std, sampled=options.samples)
            return Source(part.arrays | {"latents": latents})

        split = self.load(data)
        return Split(as_used(split.train), as_used(split.heldout))

    def images_behind(self, config: Config) -> DataOptions:
        """Where the cache says that they are, or where `config.evaluation` says."""
        data, evaluation = config.data, config.evaluation
        stored = read_index(Path(data.path)).get("images", {})  # older caches lack it
        source = evaluation.data_source or stored.get("source", "")
        path = evaluation.data_path
        if not path and source == stored.get("source"):
            path = stored.get("path", "")
        if not source:
            raise UserError(
                f"{data.path} does not say which images it holds the latents of; give "
                "--config.evaluation.data_source and --config.evaluation.data_path."
            )
        images = dataclasses.replace(data, source=source, path=path)
        if path and not source_of(images).path_may_be_a_name and not Path(path).exists():
            raise UserError(
                f"The images behind the latent cache {data.path} are not at {path}; give their "
                "place by --config.evaluation.data_path."
            )
        return images

    def made_of(self, data: DataOptions) -> dict[str, str]:
        index = read_index(Path(data.path))
        if "data" not in index:
            raise UserError(
                f"{data.path} does not say which images it was made of; run {PREPARE} into another "
                "folder."
            )
        return index["data"]


SOURCE = Cache()
