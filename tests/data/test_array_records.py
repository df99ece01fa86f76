"""Images in ArrayRecord files: those that others wrote, and those that `prepare images` writes."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of

from sphere_jax.common import progress
from sphere_jax.config.options import DataOptions
from sphere_jax.data import file_cache, record_files, record_pictures, record_writer
from sphere_jax.data.record_writer import write_images
from sphere_jax.data.source import load
from sphere_jax.data.tf_examples import write_example


def encoded(number, kind="PNG") -> bytes:
    """A picture of 12x8 in one colour, which is its number."""
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (10 * number, 255 - number, 128)).save(file, kind)
    return file.getvalue()


def write(file, examples):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(file), "group_size:1")
    for example in examples:
        writer.write(example if isinstance(example, bytes) else write_example(example))
    writer.close()


def numbered(numbers, image="image", label="label"):
    return [{image: encoded(n), label: n % 2} for n in numbers]


def data(folder, **options) -> DataOptions:
    options = dict(image_size=8, channels=3, num_classes=2) | options
    return DataOptions(source="array_record", path=str(folder), **options)


def found(source) -> list[int]:
    """The numbers of its pictures."""
    read = source.read(np.arange(len(source)))
    assert read["images"].shape[1:] == (8, 8, 3)
    return (read["images"][:, 4, 4, 0] // 10).tolist()


@pytest.fixture(autouse=True)
def listings(tmp_path, monkeypatch):
    monkeypatch.setenv("SPHERE_JAX_LISTINGS", str(tmp_path / "listings"))
    return tmp_path / "listings"


@pytest.mark.parametrize(
    "names", [("image", "label"), ("image/encoded", "image/class/label")], ids=["tfds", "slim"]
)
@pytest.mark.parametrize("aside", ["heldout", "validation", "val", "test"])
def test_files_in_parts(tmp_path, names, aside):
    write(tmp_path / "train-00000.array_record", numbered(range(0, 3), *names))
    write(tmp_path / "train-00001.array_record", numbered(range(3, 5), *names))
    write(tmp_path / f"{aside}.array_record-00000-of-00001", numbered(range(5, 7), *names))
    split = load(data(tmp_path))
    assert found(split.train) == [0, 1, 2, 3, 4] and found(split.heldout) == [5, 6]
    assert split.train.labels.tolist() == [0, 1, 0, 1, 0] and split.train.labels.dtype == np.int32
    read = split.train.read(np.array([4, 0, 4]), np.array([False, True, False]))
    assert (read["images"][:, 0, 0, 0] // 10).tolist() == [4, 0, 4]


def test_without_a_held_out_part_a_fifth_is_held_out(tmp_path):
    write(tmp_path / "train.array_record", numbered(range(20)))
    split = load(data(tmp_path))
    assert found(split.heldout) == [8, 9, 18, 19] and len(split.train) == 16
    assert split.train.fingerprint != split.heldout.fingerprint


def test_labels_are_read_once_until_a_file_changes(tmp_path, listings, monkeypatch):
    """Every record holds its picture too: of a large set that is hours of reading."""
    file = tmp_path / "train.array_record"
    write(file, numbered(range(10)))
    calls, listed = [], record_pictures._listed
    monkeypatch.setattr(
        record_pictures, "_listed", lambda files: calls.append(files) or listed(files)
    )
    first = load(data(tmp_path)).train
    again = load(data(tmp_path)).train
    assert len(calls) == 1 and again.fingerprint == first.fingerprint
    assert again.labels.tolist() == first.labels.tolist() and found(again) == found(first)
    write(file, numbered(range(1, 11)))
    assert load(data(tmp_path)).train.labels.tolist() != first.labels.tolist()
    assert len(calls) == 2
    for listing in listings.iterdir():
        listing.write_bytes(b"damaged")
    assert found(load(data(tmp_path)).train) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(calls) == 3
    monkeypatch.setenv("SPHERE_JAX_LISTINGS", str(file / "nowhere"))  # nothing can be cached
    assert len(load(data(tmp_path)).train) == 8 and len(calls) == 4


def test_long_reading_logs_progress(tmp_path, monkeypatch, capsys):
    write(tmp_path / "train.array_record", numbered(range(10)))
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    monkeypatch.setattr(record_pictures, "TOGETHER", 4)
    load(data(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1].startswith("labels read, once: 8/10 ")


def test_few_files_are_open_at_once(tmp_path, monkeypatch):
    for number in range(6):
        write(tmp_path / f"train-{number}.array_record", numbered([number]))
    monkeypatch.setattr(record_files, "OPEN_FILES", 2)
    before = len(os.listdir("/proc/self/fd"))
    files = sorted(tmp_path.glob("*.array_record"))
    pictures, *_ = record_pictures.read_pictures(data(tmp_path), files, [], tmp_path, "")
    for _ in range(2):
        assert [pictures[i][4, 4, 0] // 10 for i in range(6)] == list(range(6))
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_errors_of_a_folder(tmp_path):
    assert "There is no folder ''" in refusal_of(load, data(""))
    assert "There is no folder" in refusal_of(load, data(tmp_path / "none"))
    assert "has no train*.array_record" in refusal_of(load, data(tmp_path))
    file = tmp_path / "train.array_record"
    write(file, [])
    assert "holds no images" in refusal_of(load, data(tmp_path))
    for examples, words in (
        ([b"\xffno protobuf"], "no tf.train.Example"),
        ([{"image": encoded(0)}], "it has image, not an encoded image and an integer label"),
        ([{"label": 0}], "it has label, not"),
        ([{"image": 1, "label": 0}], "it has image, label, not"),
        ([{"image": encoded(0), "label": b"cat"}], "it has image, label, not"),
        (numbered([0, 1]), "nothing to hold out"),
        ([{"image": encoded(0), "label": 1000}] * 5, "run from 1000 to 1000"),
        ([{"image": encoded(0), "label": 2**32}] * 5, "they must be classes"),  # 0 as an int32
    ):
        write(file, examples)
        assert words in refusal_of(load, data(tmp_path))
    write(file, numbered([0] * 5))
    for plan in ("{}", '{"images": 5}', '{"images": {"train": "5"}}'):
        (tmp_path / "images.json").write_text(plan)
        assert "images.json is damaged" in refusal_of(load, data(tmp_path))
    (tmp_path / "images.json").unlink()
    whole = file.read_bytes()
    for content in (b"no records" * 100, b"", whole[:-1], whole[: len(whole) // 2]):
        file.write_bytes(content)
        assert "cannot be used as ArrayRecord (it is cut off, or" in refusal_of(
            load, data(tmp_path)
        )


def test_a_picture_that_cannot_be_decoded_and_a_damaged_file(tmp_path):
    file = tmp_path / "train.array_record"
    examples = [{"image": encoded(1), "label": 0}] * 9 + [{"image": b"text" * 99, "label": 0}]
    write(file, [examples[-1], *examples[:-1]])
    train = load(data(tmp_path)).train
    assert f"Picture 0 of {tmp_path} is not an image" in refusal_of(train.read, np.array([0]))
    content = bytearray(file.read_bytes())
    content[content.find(b"text")] ^= 1
    stat = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # or its labels would be read again
    train = load(data(tmp_path)).train
    assert "train.array_record is damaged" in refusal_of(train.read, np.array([0]))


# What `sphere_jax.prepare images` writes


def originals(folder, channels=3) -> DataOptions:
    images = np.random.default_rng(0).integers(0, 256, (40, 20, 15, channels), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 3)
    path = str(folder / "images.npz")
    return DataOptions(source="npz", path=path, image_size=8, channels=channels, num_classes=3)


def prepared(original, folder, size=12):
    return write_images(original, folder, size)


@pytest.mark.parametrize("channels", [1, 3])
def test_written_images_are_read_back_to_the_bit(tmp_path, channels):
    original = originals(tmp_path, channels)
    assert prepared(original, tmp_path / "out") == {"train": 34, "heldout": 6}
    written = sorted(file.stem for file in (tmp_path / "out").glob("*.array_record"))
    assert written == ["heldout-00000", "train-00000", "train-00001", "train-00002"]
    back = load(data(tmp_path / "out", channels=channels, num_classes=3))
    for a, b in zip(vars(load(original)).values(), vars(back).values(), strict=True):
        rows = np.arange(len(a))
        a, b = a.read(rows), b.read(rows)
        np.testing.assert_array_equal(a["images"], b["images"])
        np.testing.assert_array_equal(a["labels"], b["labels"])


def test_writing_resumes_and_incomplete_caches_are_refused(tmp_path, monkeypatch):
    original, out, written = originals(tmp_path), tmp_path / "out", record_writer._write

    def killed(file, source, shard):
        if shard.part == "heldout":
            raise KeyboardInterrupt
        written(file, source, shard)

    monkeypatch.setattr(record_writer, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        prepared(original, out)
    assert "holds 34 of 40 images" in refusal_of(load, data(out, num_classes=3))
    train = {file: file.stat().st_mtime_ns for file in out.glob("train*.array_record")}
    monkeypatch.setattr(record_writer, "_write", written)
    assert prepared(original, out) == {"train": 34, "heldout": 6}
    assert len(train) == 3 and train == {file: file.stat().st_mtime_ns for file in train}
    assert len(load(data(out, num_classes=3)).heldout) == 6
    assert "started with shard_size=12, not 13" in refusal_of(prepared, original, out, 13)
    whole = min(train)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    prepared(original, out)
    assert whole.read_bytes() == content
    spoilt = bytearray(content)
    spoilt[spoilt.index(b"IDAT") + 20] ^= 1  # in a record, whose number and size stay
    whole.write_bytes(spoilt)
    prepared(original, out)
    assert whole.read_bytes() == content
    assert "holds no images to write" in refusal_of(prepared, DataOptions(source="latents"), out)


def test_a_folder_of_something_else_is_refused(tmp_path):
    original, out = originals(tmp_path), tmp_path / "thesis"
    out.mkdir()
    (out / ".DS_Store").touch()  # not the user's
    for name in ("thesis.tex", "figure.png"):
        (out / name).touch()
    words = refusal_of(prepared, original, out)
    assert "thesis holds figure.png and 1 more and no images.json, so it was not" in words
    assert len(list(out.iterdir())) == 3
    for name in ("thesis.tex", "figure.png"):
        (out / name).unlink()
    prepared(original, out)


def test_a_failed_write_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.setattr(record_files, "temporary_beside", lambda file: file / "nowhere")
    assert "Cannot write" in refusal_of(prepared, originals(tmp_path), tmp_path / "out")


def test_a_file_that_is_not_there_cannot_be_cached(tmp_path):
    sentence = refusal_of(file_cache.cached, "x", [tmp_path / "none"], dict)
    assert "none cannot be read" in sentence
