"""A folder of ArrayRecord files, as `sphere_jax.prepare images` writes them."""

from pathlib import Path

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import read_json
from sphere_jax.config.options import Config, DataOptions
from sphere_jax.data.class_names import Classes, read_classes
from sphere_jax.data.record_pictures import count_pictures, read_pictures
from sphere_jax.data.source import Counts, DataSource, Split
from sphere_jax.data.splitting import split_images

HELD_OUT = ("heldout", "validation", "val", "test")  # the first that a folder has
PLAN = "images.json"  # what `sphere_jax.prepare images` is to write
AGAIN = "delete it and run python -m sphere_jax.prepare images again, into this folder"


class ArrayRecord(DataSource):
    """Records of `train*.array_record*`; held out are those of `heldout*`, `validation*`, `val*` or
    `test*`, or, without these, every fifth of each class. A record is a `tf.train.Example`.
    """

    read_in_batches = True

    def classes(self, data: DataOptions) -> Classes:
        """Named by `classes.json` in the folder."""
        return read_classes(Path(data.path), data.num_classes) or super().classes(data)

    def load(self, data: DataOptions) -> Split:
        folder = Path(data.path)
        train, held = _files(data)
        images, labels, is_held = read_pictures(data, train, held, folder, title="")
        _check_whole(folder, len(labels))
        return split_images(images, labels, is_held, data)

    def counts(self, config: Config) -> Counts:
        return count_pictures(*_files(config.data))


def _files(data: DataOptions) -> tuple[list[Path], list[Path]]:
    """Those to train on and those held out. Raises UserError."""
    folder, parts = Path(data.path), ("train", *HELD_OUT)
    if not data.path or not folder.is_dir():
        raise UserError(f"There is no folder '{data.path}'; config.data.path must be one.")
    found = {
        part: sorted(file for file in folder.glob(f"{part}*.array_record*") if file.is_file())
        for part in parts
    }
    if not found["train"]:
        raise UserError(
            f"{folder} has no train*.array_record; python -m sphere_jax.prepare images writes "
            "such files."
        )
    return found["train"], next((found[part] for part in HELD_OUT if found[part]), [])


def _check_whole(folder: Path, found: int) -> None:
    """Raises UserError if `sphere_jax.prepare images` was to write more into `folder`."""
    plan = read_json(folder / PLAN, AGAIN, {"images": {str: int}})
    if plan is not None and (planned := sum(plan["images"].values())) != found:
        raise UserError(
            f"{folder} holds {found:,} of {planned:,} images; run python -m sphere_jax.prepare "
            "images again, which writes the rest."
        )


SOURCE = ArrayRecord()
