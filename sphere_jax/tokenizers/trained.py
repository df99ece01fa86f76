"""What tokenizers share that a stage of a run trains: another run can take their weights."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from sphere_jax.config.option import option
from sphere_jax.nn.functional import Network, Networks, Params
from sphere_jax.tokenizers.base import Tokenizer, TokenizerOptions
from sphere_jax.weights.stored import WeightsFile, no_layouts


@dataclasses.dataclass(frozen=True)
class TrainedOptions(TokenizerOptions):
    pretrained: str = option(
        "", file=True, help="weights, instead of a stage that trains it: the folder of a run that "
        "did, or what sphere_jax.convert --export=tokenizer wrote",
    )  # fmt: skip


class Trained(Tokenizer):
    """A subclass has `networks`, and `given`: whether `pretrained` names its weights."""

    given: bool
    trained_here: ClassVar[bool] = True

    @property
    def networks(self) -> Mapping[str, Network]:
        """Its networks by `parts`; those of channel statistics too."""
        raise NotImplementedError

    @classmethod
    def trained_by_run(cls, options: TrainedOptions) -> bool:
        return options.pretrained == ""

    def files(self, options: TrainedOptions) -> dict[str, WeightsFile]:
        if not self.given:
            return {}
        whole = Networks(self.shapes())
        return {"": WeightsFile(options.pretrained, options.name, whole, no_layouts)}

    def shapes(self) -> Params:
        if not self.given:
            return {}
        return {part: network.shapes for part, network in self.networks.items()}
