"""What a measure is: numbers from the features of samples, mostly against those of a reference.

A measure is one file of this folder, found by its name: "fid" is `MEASURE` of `fid.py`; a name with
a dot is a module of another package. Nothing outside that file knows it. `find_measure` reads a
name with settings, as in "precision_recall:neighbours=5".
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError, shortened
from sphere_jax.evaluation.statistics import Statistics

PACKAGE, ATTRIBUTE = "evaluation.measures", "MEASURE"
Needs = Literal["statistics", "rows"]
Data = Statistics | Float[np.ndarray, "_n _f"]  # as an `Input` needs it
Labels = Integer[np.ndarray, " _n"]


class Input(NamedTuple):
    """What a measure takes of one side: an output of a feature network, as `Statistics` or as rows
    (N, F), float32."""

    network: str
    output: str
    needs: Needs


@dataclasses.dataclass(frozen=True)
class Result:
    """Numbers of one measure with what must stand beside them.

    values: by key.
    facts: measure, networks and outputs, number of samples and of reference images, settings; ready
      for JSON.
    remarks: one sentence for each reason to doubt the numbers.
    """

    values: dict[str, float]
    facts: dict[str, Any]
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure and its settings, which are its fields: `dataclasses.replace` changes them.

    Facts of the class:
      title: the measure in words.
      better: whether lower or higher values are better.
      output: which output of the network it takes.
      needs: what it takes of the samples. reference_needs: of the reference; None takes none.
      uses_labels: takes the classes that the samples were drawn for.
      at_least: the fewest images of a side.
    """

    title: ClassVar[str]
    better: ClassVar[Literal["lower", "higher"]]
    output: ClassVar[str] = "features"
    needs: ClassVar[Needs] = "rows"
    reference_needs: ClassVar[Needs | None] = "rows"
    uses_labels: ClassVar[bool] = False
    at_least: ClassVar[int] = 2

    network: str

    @property
    def name(self) -> str:
        """By which it is found: that of its file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def suffix(self) -> str:
        """What its keys end in: nothing, or the network where it is not the measure's own."""
        own = next(field.default for field in dataclasses.fields(self) if field.name == "network")
        return "" if self.network == own else f"_{self.network.rpartition('.')[2]}"

    def inputs(self) -> tuple[Input, ...]:
        """What it takes of the samples."""
        return (Input(self.network, self.output, self.needs),)

    def reference_inputs(self) -> tuple[Input, ...]:
        """What it takes of the reference; empty where it takes none."""
        if self.reference_needs is None:
            return ()
        return (Input(self.network, self.output, self.reference_needs),)

    def compute(self, samples: Any, reference: Any = None, labels: Labels | None = None) -> dict:
        """The values by key, without `suffix`.

        Args:
          samples: `Statistics` or rows (N, F), as `needs` says.
          reference: `Statistics` or rows (M, F), as `reference_needs` says, or None.
          labels: (N,), where it `uses_labels`.

        Raises:
          UserError: the data do not suit, in a sentence.
        """
        raise NotImplementedError

    def scores(
        self,
        samples: Mapping[Input, Data],
        reference: Mapping[Input, Data],
        labels: Labels | None = None,
    ) -> dict[str, float]:
        """The values from all `inputs` and `reference_inputs`; several inputs override this."""
        (mine,) = self.inputs()
        (theirs,) = self.reference_inputs() or (None,)
        given = reference[theirs] if theirs else None
        found = self.compute(samples[mine], given, labels)
        return {f"{key}{self.suffix}": float(value) for key, value in found.items()}

    def result(
        self,
        samples: Mapping[Input, Data],
        reference: Mapping[Input, Data],
        labels: Labels | None = None,
    ) -> Result:
        """`scores` with their facts and remarks.

        Raises:
          UserError: too few images, or data that do not suit.
        """
        counts = {"samples": _count(samples[each] for each in self.inputs())}
        if self.reference_inputs():
            counts["reference"] = _count(reference[each] for each in self.reference_inputs())
        for side, count in counts.items():
            if count is not None and count < self.at_least:
                raise UserError(
                    f"{self.title} needs at least {self.at_least} images of the {side}, not "
                    f"{count}; give more."
                )
        settings = dataclasses.asdict(self)
        inputs = sorted({(each.network, each.output) for each in self.inputs()})
        facts = {
            "measure": self.name,
            **counts,
            "features": [f"{network}: {output}" for network, output in inputs],
            "settings": {key: value for key, value in settings.items() if key != "network"},
        }
        length = min(_length(samples[each]) for each in self.inputs())
        remarks = self.remarks(counts["samples"], counts.get("reference"), length)
        try:
            return Result(self.scores(samples, reference, labels), facts, tuple(remarks))
        except ValueError as error:  # of features that are not finite, say
            raise UserError(f"{self.title}: {error}") from error

    def remarks(self, samples: int | None, reference: int | None, length: int) -> list[str]:
        """Reasons to doubt the values of so many images (None: unknown), features of `length`."""
        return []


def find_measure(text: str, where: str = "metrics") -> Measure:
    """The measure that a text names, as in "fid" or "precision_recall:neighbours=5,network=x".

    Raises:
      UserError: no such measure or setting, or a value of another type.
    """
    name, _, settings = text.partition(":")
    measure = plugins.find(PACKAGE, ATTRIBUTE, name, where)
    changed = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        known = {field.name: field.type for field in dataclasses.fields(measure)}
        if key not in known:
            raise UserError(
                f"{where}='{shortened(text)}': {name} has no setting '{shortened(key)}'; "
                f"{plugins.nearest(key, known)}"
            )
        changed[key] = _read(value, type(getattr(measure, key)), f"{where}='{shortened(text)}'")
    try:
        return dataclasses.replace(measure, **changed)
    except ValueError as error:
        raise UserError(f"{where}='{shortened(text)}': {error}") from error


def names_in(text: str) -> list[str]:
    """Measures separated by commas, as in "fid,precision_recall:neighbours=5,network=x,kid": a
    setting belongs to the measure before it."""
    found: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if "=" in part and ":" not in part and found:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def all_measures() -> list[str]:
    """The names of the measures of this folder, sorted."""
    return plugins.known(PACKAGE, ATTRIBUTE)


def _read(value: str, kind: type, where: str) -> Any:
    words = {"true": True, "false": False}
    try:
        return words[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: '{shortened(value)}' is no {kind.__name__}.") from error


def _count(data: Any) -> int | None:
    counts = [each.n if isinstance(each, Statistics) else len(each) for each in data]
    known = [count for count in counts if count is not None]
    return min(known) if known else None


def _length(data: Data) -> int:
    return data.mu.size if isinstance(data, Statistics) else data.shape[1]
