"""What a stage leaves behind besides its parameters."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`artifacts` feed later stages, `metrics` the report's tables, `arrays` its figures."""

    artifacts: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
