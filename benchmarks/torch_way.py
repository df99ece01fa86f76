"""Where, in which precision and how compiled PyTorch runs the twins of our networks."""

import dataclasses
import importlib
from typing import Any

import torch

from benchmarks.sit_cases import Case
from benchmarks.torch_sit import load


@dataclasses.dataclass(frozen=True)
class TorchWay:
    """half: products in bfloat16 by autocast, as training scripts do: weights stay float32.
    by_block: torch.compile of a block, whose program all blocks share, in place of one of the whole
    network: as fast to a few percent, and compiled in a tenth of the time for 28 blocks."""

    device: str = "cpu"
    half: bool = False
    by_block: bool = False

    def prepare(self, case: Case, compiled: bool) -> tuple[Any, list, dict[str, torch.Tensor]]:
        """The network with the weights of `case`, its parameters, and the batch."""
        module, name = case.twin
        twin = getattr(importlib.import_module(f"benchmarks.{module}"), name)
        model = load(twin(*case.sizes), case.params).to(self.device)
        batch = {name: torch.from_numpy(a).to(self.device) for name, a in case.data.items()}
        network = model
        if compiled and self.by_block:
            for block in model.blocks:
                block.compile()
        elif compiled:
            network = torch.compile(model)
        return network, list(model.parameters()), batch

    def precision(self):
        return torch.autocast(self.device, torch.bfloat16, enabled=self.half)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
