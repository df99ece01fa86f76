"""Where, in which precision and how compiled PyTorch runs the twins of our networks."""

import dataclasses
import importlib
from typing import Any

import torch

from benchmarks.sit_cases import Case
from benchmarks.torch_sit import load


@dataclasses.dataclass(frozen=True)
class TorchWay:
    """half: products in bfloat16 by autocast, as training scripts do: weights stay float32 in
    training, and those of linear layers, which autocast would cast at each call, are cast once for
    sampling. Tokens between blocks are float32, as ours are.
    by_block: torch.compile of a block, whose program all blocks share, in place of one of the whole
    network: as fast to a few percent, and compiled in a tenth of the time for 28 blocks."""

    device: str = "cpu"
    half: bool = False
    by_block: bool = False

    def prepare(
        self, case: Case, compiled: bool, sampling: bool = False
    ) -> tuple[Any, list, dict[str, torch.Tensor]]:
        """The network with the weights of `case`, its parameters, and the batch."""
        file, name = case.twin
        twin = getattr(importlib.import_module(f"benchmarks.{file}"), name)
        model = load(twin(*case.sizes), case.params).to(self.device)
        if self.half and sampling:
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.bfloat16()
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
