"""What published, frozen tokenizers share: their weights come from files that options name."""

import dataclasses
from abc import abstractmethod
from typing import Any

import numpy as np

from sphere_jax.config.checks import check
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.models.latent_statistics import LatentStatistics
from sphere_jax.nn.functional import Network, Params
from sphere_jax.tokenizers.base import Channels, Tokenizer
from sphere_jax.weights.layouts import latent_statistics
from sphere_jax.weights.stored import WeightsFile


class FromFiles(Tokenizer):
    """Images are RGB. A subclass has `encoder` and `decoder`, two `Network`s."""

    encoder: Network
    decoder: Network

    @classmethod
    def check(cls, config: Config) -> None:
        check(
            config.data.channels == 3,
            f"config.tokenizer.name='{config.tokenizer.name}' takes colour images: "
            "config.data.channels=3.",
        )

    @property
    @abstractmethod
    def statistics(self) -> Network | None:
        """`LatentStatistics` that latents are normalised by; None without."""

    def shapes(self) -> Params:
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        if self.statistics is not None:
            networks["statistics"] = self.statistics
        return {part: network.shapes for part, network in networks.items()}


class PublishedVAE(FromFiles):
    """An autoencoder in one file, `pretrained`, of one `kind`; latents are normalised by channel if
    `pretrained_statistics` are given.

    A subclass has `kind` and `whiten`, whether these statistics are given.
    """

    kind: str
    whiten: bool

    @abstractmethod
    def autoencoder(self, path: str) -> WeightsFile:
        """A file with encoder and decoder."""

    @classmethod
    @abstractmethod
    def channels(cls, kind: str) -> int:
        """Of latents, before they are packed."""

    @classmethod
    def packing(cls, options: Any) -> int:
        """Positions of a channel that lie side by side in a packed latent."""
        return 1

    @property
    def statistics(self) -> Network | None:
        return _channel_statistics(self.channels(self.kind)) if self.whiten else None

    def files(self, options: Any) -> dict[str, WeightsFile]:
        found = {"": given("pretrained", self.autoencoder(options.pretrained))}
        if self.whiten:
            found["statistics"] = self._statistics_file(options)
        return found

    @classmethod
    def statistics_to_apply(
        cls, data: DataOptions, options: Any, made_with: dict[str, Any]
    ) -> tuple[Channels, Channels] | None:
        if not options.pretrained_statistics:
            return None
        bare = dataclasses.replace(options, pretrained_statistics="")
        if cls.latents_made_with(data, bare) != made_with:
            return None
        found = cls._statistics_file(options).load()
        mean, std = (np.asarray(found[name]) for name in ("mean", "std"))
        times = cls.packing(options)
        return np.repeat(mean, times), np.repeat(std, times)

    @classmethod
    def without_statistics(cls, options: Any) -> Any:
        check(
            not options.pretrained_statistics,
            "config.tokenizer.pretrained_statistics must be empty to measure them.",
        )
        return options

    @classmethod
    def statistics_source(cls, data: DataOptions, options: Any) -> tuple[str, str]:
        return f"{options.kind}_statistics", options.pretrained

    @classmethod
    def _statistics_file(cls, options: Any) -> WeightsFile:
        """Mean and std of the channels, (d,) each, before packing."""
        network = _channel_statistics(cls.channels(options.kind))
        name = f"{options.kind}_statistics"
        return statistics_file(options.pretrained_statistics, name, network)


def _channel_statistics(channels: int) -> Network:
    return Network(lambda rngs: LatentStatistics((channels,), "std", rngs=rngs))


def statistics_file(path: str, name: str, network: Network) -> WeightsFile:
    """That which `pretrained_statistics` names."""
    layouts = latent_statistics.layouts
    file = WeightsFile(path, name, network, layouts, part="statistics")
    return given("pretrained_statistics", file)


def given(option: str, file: WeightsFile) -> WeightsFile:
    """The file that an option of the tokenizer names, if it does."""
    return dataclasses.replace(file, option=f"config.tokenizer.{option}")
