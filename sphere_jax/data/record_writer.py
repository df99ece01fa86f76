"""A data set of images as ArrayRecord files: one set of files for all processes of a pod to read.

F/images.json                what is written; a folder started with another plan is refused
F/classes.json               names of classes, if the data have them
F/train-00000.array_record   a `tf.train.Example` an image
F/heldout-00000.array_record

An example holds `image`, a PNG at its final size, and `label`. A file is written whole or not at
all, and processes take files in turn.
"""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_folder, read_json, write_json
from sphere_jax.common.processes import is_main_process
from sphere_jax.config.options import DataOptions, source_of
from sphere_jax.data.class_names import classes_of, write_classes
from sphere_jax.data.record_files import open_records, whole_records
from sphere_jax.data.shards import (
    PARTS,
    Shard,
    check_not_foreign,
    check_plan,
    shards_of,
    write_missing,
)
from sphere_jax.data.source import Source, load
from sphere_jax.data.sources.array_record import AGAIN, PLAN
from sphere_jax.data.tf_examples import write_example

TOGETHER = 256  # images in memory at once


def write_images(data: DataOptions, folder: str | os.PathLike, shard_size: int) -> dict[str, int]:
    """Writes what is not in `folder` yet; returns how many images a part has.

    Images are brought to size and split as `data` says; read back with the same options they are
    the same bits.

    Raises:
      UserError: there are no images, or `folder` cannot be written, holds other files, or was
        started with other images.
    """
    if not source_of(data).holds_images:
        raise UserError(f"config.data.source='{data.source}' holds no images to write.")
    folder = Path(folder)
    check_not_foreign(folder, PLAN)
    parts = vars(load(data))
    counts = {part: len(parts[part]) for part in PARTS}
    plan = {
        "images": counts,
        "image_size": data.image_size,
        "resize": data.resize,
        "channels": data.channels,
        "shard_size": shard_size,
        "source": {part: parts[part].fingerprint for part in PARTS},
    }
    make_folder(folder)
    before = read_json(folder / PLAN, AGAIN)
    if before is not None:
        check_plan(folder, before, json.loads(json.dumps(plan)))
    if is_main_process():
        write_json(folder / PLAN, plan, sealed=True)
        write_classes(folder, classes_of(data))

    def write(shard: Shard) -> None:
        _write(_file(folder, shard), parts[shard.part], shard)

    def is_whole(shard: Shard) -> bool:
        return _is_whole(_file(folder, shard), len(shard))

    write_missing(folder, shards_of(counts, shard_size), is_whole, write, "written")
    return counts


def _file(folder: Path, shard: Shard) -> Path:
    return folder / f"{shard.name}.array_record"


def _is_whole(file: Path, count: int) -> bool:
    """Whether it holds so many records, which are as their checksums say."""
    try:
        if not file.exists() or (records := open_records(file)).num_records() != count:
            return False
        for start in range(0, count, TOGETHER):
            records.read(range(start, min(start + TOGETHER, count)))
        return True
    except RuntimeError:
        return False


def _write(file: Path, source: Source, shard: Shard) -> None:
    with ThreadPoolExecutor() as pool, whole_records(file) as add:
        for start in range(shard.start, shard.stop, TOGETHER):
            read = source.read(np.arange(start, min(start + TOGETHER, shard.stop)))
            add(pool.map(_record, read["images"], read["labels"].tolist()))


def _record(image: np.ndarray, label: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG")
    return write_example({"image": content.getvalue(), "label": label})
