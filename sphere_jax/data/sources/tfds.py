"""Data sets of TensorFlow Datasets, from the ArrayRecord files that it prepared.

tensorflow-datasets is an optional install that finds the files; reading them needs neither it nor
TensorFlow.
"""

from pathlib import Path

from sphere_jax.common.errors import UserError, first_line
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.data.class_names import Classes
from sphere_jax.data.record_pictures import count_pictures, read_pictures
from sphere_jax.data.source import Counts, DataSource, Split
from sphere_jax.data.splitting import split_images

FORMAT = "array_record"
HELD_OUT = ("validation", "test")  # the first that a data set has
ELSEWHERE = ("huggingface", "kaggle")  # whose names tfds would look up over the network


class TFDS(DataSource):
    """`config.data.path` is a name as `tfds.builder` takes ("imagenet2012:5.1.0") or the folder of
    a prepared data set; `train` is trained on, `validation` or else `test` held out, or, without
    either, every fifth of each class.

    Every record is read once for its label, and labels are cached in the user's cache folder.
    """

    read_in_batches = True
    path_may_be_a_name = True

    def classes(self, data: DataOptions) -> Classes:
        label = _builder(data.path).info.features.get("label")
        count = data.num_classes or getattr(label, "num_classes", None)
        if not count:
            return super().classes(data)
        names = getattr(label, "names", None) or ()  # of a ClassLabel
        return Classes(count, tuple(names))

    def load(self, data: DataOptions) -> Split:
        title, train, held = _prepared(data.path)
        return split_images(*read_pictures(data, train, held, Path(title), title), data)

    def counts(self, config: Config) -> Counts:
        _, train, held = _prepared(config.data.path)
        return count_pictures(train, held)


def _prepared(path: str) -> tuple[str, list[Path], list[Path]]:
    """Its full name, the files to train on and those held out. Raises UserError."""
    builder = _builder(path)
    if not builder.is_prepared():
        raise UserError(
            f"'{path}' is not prepared in {builder.data_path}; once, where TensorFlow is "
            f"installed, run tfds build {builder.name} --file_format={FORMAT}"
        )
    if not {"image", "label"} <= set(builder.info.features):
        raise UserError(f"{path} has {', '.join(builder.info.features)}, not image and label.")
    splits = set(builder.info.splits)
    if "train" not in splits:
        raise UserError(f"{path} has no split train, but {', '.join(sorted(splits))}.")
    held = next(([name] for name in HELD_OUT if name in splits), [])
    if FORMAT not in {kind.value for kind in builder.info.available_file_formats()}:
        raise UserError(
            f"'{path}' is prepared, but not as ArrayRecord; run tfds build {builder.name} "
            f"--file_format={FORMAT}"
        )
    # It may be prepared in several formats.
    builder.info.set_file_format(FORMAT, override=True, override_if_initialized=True)
    files = [file for name in held for file in _files(builder, name)]
    return builder.info.full_name, _files(builder, "train"), files


def _files(builder, split: str) -> list[Path]:
    """Those of a split that hold something, in order."""
    return [Path(part.filename) for part in builder.info.splits[split].file_instructions]


def _builder(path: str):
    """By the name of a data set or the folder of one. Raises UserError."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            "config.data.source='tfds' needs an optional package: "
            "pip install tensorflow-datasets==4.9.10"
        ) from error
    if path.partition(":")[0] in ELSEWHERE:
        raise UserError(
            f"config.data.path='{path}' is not a data set of TensorFlow Datasets itself; save it "
            "as a folder of class folders, config.data.source='folder'."
        )
    try:
        if path and Path(path).is_dir():
            return tfds.builder_from_directory(path)
        return tfds.builder(path)
    except (ValueError, OSError, AssertionError) as error:
        reason = first_line(error).rstrip(".")
        raise UserError(
            f"config.data.path='{path}' names no data set of TensorFlow Datasets ({reason})."
        ) from error


SOURCE = TFDS()
