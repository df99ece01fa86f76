"""From a config to its parts, each built once: tokenizer, methods of the stages, sampler."""

from functools import cache, cached_property

from sphere_jax.common import plugins
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.methods.base import Generator, Method
from sphere_jax.tokenizers.base import Tokenizer, TokenizerOptions


class System:
    """The parts of a config; nothing is allocated. Properties raise UserError for sizes that do not
    fit each other."""

    def __init__(self, config: Config):
        self.config = config

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return build_tokenizer(self.config.data, self.config.tokenizer)

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Of every stage, by its name, in order."""
        return {
            name: self.config.method(name).build(self.config, name, self.tokenizer)
            for name in self.config.stages
        }

    @property
    def generator(self) -> Generator | None:
        """The method of the last stage that generates."""
        return self.methods[self.config.generator] if self.config.generator else None

    def sampler(self, config: Config):
        """The generator's sampler with the sampler options of another, otherwise equal config."""
        name = self.config.generator
        return self.config.method(name).make_sampler(config, name, self.tokenizer)


@cache  # takes seconds; arms of a comparison share it
def build_tokenizer(data: DataOptions, options: TokenizerOptions) -> Tokenizer:
    """Raises UserError for sizes that do not fit each other."""
    found = plugins.find("tokenizers", "TOKENIZER", options.name, "config.tokenizer.name")
    return found.build(data, options)
