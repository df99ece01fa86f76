"""A folder of class folders: its classes, its split, and that pictures are decoded when indexed."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.lazy_pictures import Pictures
from sphere_jax.data.pictures import read_files
from sphere_jax.data.pipeline import Batches, map_batched
from sphere_jax.data.source import Source, load
from sphere_jax.distribution.mesh import batch_sharding, make_mesh

COUNT = 10  # pictures of each class
CLASSES = ("ape", "bee", "cat")


def save(file, seed, width=12, height=9):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


@pytest.fixture(scope="module")
def classes_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    for label in (2, 0, 1):  # folders are not made in the order of their names
        for i in range(COUNT):
            suffix = ("png", "JPG", "jpeg", "webp")[i % 4]
            save(root / CLASSES[label] / f"{i:02}.{suffix}", 100 * label + i)
    (root / "ape" / "notes.txt").write_text("not an image")
    (root / "ape" / "._00.png").write_text("what macOS leaves behind")
    (root / ".cache").mkdir()
    return root


@pytest.fixture
def folder(classes_folder, tmp_path):
    """One that a test may damage."""
    return shutil.copytree(classes_folder, tmp_path / "root")


def config(root, num_classes=3, **options) -> DataOptions:
    options = dict(image_size=8, channels=3) | options
    return DataOptions(source="folder", path=str(root), num_classes=num_classes, **options)


def plain(file, mode="RGB"):
    """12x9 to 10x8, then the middle 8x8."""
    picture = Image.open(file).convert(mode).resize((10, 8), Image.Resampling.BICUBIC)
    return np.asarray(picture.crop((1, 0, 9, 8)))


def refusal(root, **options) -> str:
    return refusal_of(load, config(root, **options))


def test_every_fifth_of_each_class_is_held_out(classes_folder):
    split = load(config(classes_folder))
    assert split.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert split.heldout.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert split.train.labels.dtype == np.int32
    held = [f"{c}/{name}" for c in CLASSES for name in ("04.png", "09.JPG")]
    assert split.heldout.arrays["images"].names.tolist() == held
    both = {*split.train.arrays["images"].names, *held}
    assert len(both) == 30 and not any("._" in name or "txt" in name for name in both)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_examples_are_what_pillow_reads(classes_folder, channels, mode):
    source = load(config(classes_folder, channels=channels)).train
    rows = np.array([23, 0, 9, 0])  # 08 of cat, 00 of ape, 01 of bee, and again
    read = source.read(rows)
    files = ("cat/08.png", "ape/00.png", "bee/01.JPG", "ape/00.png")
    expected = np.stack([plain(classes_folder / file, mode) for file in files])
    np.testing.assert_array_equal(read["images"], expected.reshape(4, 8, 8, channels))
    assert read["labels"].tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("resize", ["bicubic", "nearest", "adm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_read_for_editing_as_for_training(classes_folder, resize, channels):
    options = config(classes_folder, resize=resize, channels=channels)
    pictures = load(options).heldout.arrays["images"]
    found = read_files([classes_folder / name for name in pictures.names], options)
    np.testing.assert_array_equal(found, pictures[:])


def test_files_that_cannot_be_edited(classes_folder):
    missing, text = classes_folder / "none.png", classes_folder / "ape" / "notes.txt"
    assert "There is no image" in refusal_of(read_files, [missing], config(classes_folder))
    assert "notes.txt is not an image" in refusal_of(read_files, [text], config(classes_folder))


def test_the_resize_option_is_used(classes_folder):
    for resize, how in (("nearest", "NEAREST"), ("bicubic", "BICUBIC")):
        image = load(config(classes_folder, resize=resize)).train.arrays["images"][0]
        picture = Image.open(classes_folder / "ape/00.png")
        expected = picture.resize((10, 8), Image.Resampling[how]).crop((1, 0, 9, 8))
        np.testing.assert_array_equal(image, np.asarray(expected))


@pytest.mark.parametrize("aside", ["val", "test"])
def test_a_held_out_part_of_its_own(tmp_path, aside):
    for label, name in enumerate(CLASSES):
        for i in range(3):
            save(tmp_path / "train" / name / f"{i}.png", 10 * label + i)
    for name in ("cat", "ape"):  # a small part may lack a class; numbers are those of train
        save(tmp_path / aside / name / "0.png", 99)
    if aside == "val":
        (tmp_path / "test").mkdir()  # val comes first
    split = load(config(tmp_path))
    assert split.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert split.heldout.labels.tolist() == [0, 2]
    names = split.heldout.arrays["images"].names.tolist()
    assert names == [f"{aside}/ape/0.png", f"{aside}/cat/0.png"]
    expected = plain(tmp_path / aside / "cat" / "0.png")
    np.testing.assert_array_equal(split.heldout.arrays["images"][1], expected)


def test_classes_may_be_called_train_and_test(tmp_path):
    for name in ("bus", "test", "train"):
        for i in range(5):
            save(tmp_path / name / f"{i}.png", i)
    split = load(config(tmp_path))
    assert (len(split.train), len(split.heldout)) == (12, 3)


def grey_folder(root, values, suffix=".png", count=6):
    """One class folder a name, each with images of one grey."""
    for name, value in values.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (value,) * 3).save(root / name / f"{i}{suffix}")


def test_folders_named_by_integers_are_in_the_order_of_their_values(tmp_path):
    grey_folder(tmp_path, {str(k): 20 * k for k in range(11)})
    data = DataOptions(
        source="folder", path=str(tmp_path), image_size=8, channels=3, num_classes=11
    )
    for part in vars(load(data)).values():
        np.testing.assert_array_equal(part.arrays["images"][:][:, 0, 0, 0], 20 * part.labels)


def test_other_image_formats_are_read(tmp_path, capsys):
    grey_folder(tmp_path, {"a": 10, "b": 200})
    for suffix in (".bmp", ".tif", ".gif", ".ppm", ".jfif", ".JPE"):
        grey_folder(tmp_path, {"b": 200}, suffix)
    grey_folder(tmp_path, {"__MACOSX": 0})
    data = DataOptions(source="folder", path=str(tmp_path), image_size=8, channels=3, num_classes=2)
    split = load(data)
    assert len(split.train) + len(split.heldout) == 6 + 7 * 6
    values = np.array([10, 200])[split.train.labels]
    assert np.abs(split.train.arrays["images"][:][:, 0, 0, 0] - values.astype(int)).max() <= 2
    assert capsys.readouterr().out == ""


def test_what_is_left_out_of_a_class_is_counted(tmp_path, capsys):
    grey_folder(tmp_path, {"a": 10, "b": 200})
    (tmp_path / "a" / "notes.txt").write_text("")
    (tmp_path / "b" / "Thumbs.db").write_text("")
    (tmp_path / "a" / ".DS_Store").write_text("")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")  # opening one waits for a writer
    shutil.copy(tmp_path / "a" / "0.png", tmp_path / "beside.png")
    data = DataOptions(source="folder", path=str(tmp_path), image_size=8, channels=3, num_classes=2)
    assert len(load(data).train) == 10
    out = capsys.readouterr().out
    assert f"{tmp_path}: 2 left out: files that are no images, for example" in out
    assert "notes.txt" in out and "1 left out: links to nothing" in out and "gone.png" in out
    assert "1 left out: pipes, sockets or devices" in out and "pipe.png" in out
    assert "1 left out: pictures beside the class folders" in out and "beside.png" in out


def test_folders_in_a_class_belong_to_it(tmp_path):
    grey_folder(tmp_path, {"a": 10, "b/images": 200, "b/images/more": 200, "a/__MACOSX": 0})
    split = load(config(tmp_path, num_classes=2))
    assert np.bincount(split.train.labels).tolist() == [5, 10]
    values = split.train.arrays["images"][:][:, 0, 0, 0]
    np.testing.assert_array_equal(values, np.array([10, 200])[split.train.labels])


def test_links_are_followed_once(tmp_path):
    grey_folder(tmp_path / "elsewhere", {"a": 10})
    root = tmp_path / "root"
    grey_folder(root, {"b": 200})
    (root / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (root / "b" / "again").symlink_to(root / "b")  # a loop
    (root / "whole").symlink_to(root)
    split = load(config(root, num_classes=2))
    assert np.bincount(split.train.labels).tolist() == [5, 5]


def test_nothing_is_decoded_before_it_is_indexed(folder):
    source = load(config(folder)).train
    (folder / "ape/00.png").unlink()
    assert source.arrays["images"].shape == (24, 8, 8, 3)
    assert source.read(np.array([1, 2]))["images"].shape == (2, 8, 8, 3)
    with pytest.raises(UserError, match="ape/00.png cannot be read"):
        source.read(np.array([1, 0]))


def test_pictures_are_indexed_like_an_array(classes_folder):
    pictures = load(config(classes_folder)).train.arrays["images"]
    whole = np.asarray(pictures)
    assert isinstance(pictures, Pictures) and whole.shape == pictures.shape == (24, 8, 8, 3)
    assert len(pictures) == 24 and pictures.ndim == 4 and pictures.dtype == whole.dtype == np.uint8
    mask = np.arange(24) % 5 == 0
    for rows in (slice(3, 20, 4), np.array([7, 7, 1]), mask, 5, -1, slice(0, 0)):
        np.testing.assert_array_equal(pictures[rows], whole[rows])
    np.testing.assert_array_equal(np.asarray(pictures.keep(mask)), whole[mask])
    assert np.asarray(pictures, np.float32).dtype == np.float32
    with pytest.raises(IndexError):
        pictures[24]


def test_a_fingerprint_sees_names_sizes_and_the_resizing(folder, tmp_path):
    def prints(root, **options):
        split = load(config(root, **options))
        return split.train.fingerprint, split.heldout.fingerprint

    before = prints(folder)
    assert before[0] != before[1]
    assert prints(shutil.copytree(folder, tmp_path / "elsewhere")) == before
    assert prints(folder, image_size=9)[0] != before[0]
    assert prints(folder, channels=1)[0] != before[0]
    assert prints(folder, resize="adm")[0] != before[0]
    with open(folder / "bee" / "00.png", "ab") as file:
        file.write(b"\0")
    longer = prints(folder)
    assert longer[0] != before[0] and longer[1] == before[1]
    (folder / "cat" / "00.png").rename(folder / "cat" / "00_.png")
    assert prints(folder)[0] != longer[0]


# In the pipeline


@pytest.fixture(scope="module")
def sharding():
    return batch_sharding(make_mesh())


@pytest.fixture(scope="module")
def lazy(classes_folder):
    return load(config(classes_folder)).train


@pytest.fixture(scope="module")
def eager(lazy):
    return Source({"images": np.asarray(lazy.arrays["images"]), "labels": lazy.labels})


def take(batches, count):
    drawn = [next(batches) for _ in range(count)]
    return [np.stack([np.asarray(b[name]) for b in drawn]) for name in ("images", "labels")]


@pytest.mark.parametrize("flip", [False, True])
def test_batches_are_those_of_the_same_images_in_memory(lazy, eager, sharding, flip):
    for seed in (0, 1):
        found = take(Batches(lazy, 8, seed, sharding, flip), 5)
        for a, b in zip(found, take(Batches(eager, 8, seed, sharding, flip), 5), strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_resume_exactly(lazy, sharding):
    whole = Batches(lazy, 8, 0, sharding, flip=True)
    take(whole, 4)
    state, (rest, _) = whole.state, take(whole, 5)
    resumed = Batches(lazy, 8, 0, sharding, flip=True)
    resumed.set_state(state)
    np.testing.assert_array_equal(take(resumed, 5)[0], rest)


def test_mapping_reads_a_batch_at_a_time(lazy, eager, sharding, monkeypatch):
    counts = []
    read = Pictures.__getitem__
    monkeypatch.setattr(
        Pictures, "__getitem__", lambda self, rows: counts.append(len(rows)) or read(self, rows)
    )
    found = map_batched(lambda x: x[:, ::-1], (lazy.arrays["images"],), 10, sharding)
    np.testing.assert_array_equal(found, eager.arrays["images"][:, ::-1])
    assert counts == [10, 10, 10]


# What is wrong with a folder


def test_wrong_number_of_classes(classes_folder):
    for count in (2, 10):
        words = f"has 3 class folders but config.data.num_classes={count}: 'ape', 'bee', 'cat';"
        assert words in refusal(classes_folder, num_classes=count)


def test_missing_and_empty_folders(folder, tmp_path):
    assert "There is no folder ''" in refusal("")
    assert "There is no folder" in refusal(folder / "nowhere")
    assert "There is no folder" in refusal(folder / "ape" / "00.png")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refusal(tmp_path / "empty")
    (folder / "dog").mkdir()
    (folder / "dog" / "dog.txt").write_text("a dog")
    assert "dog holds no images (.jpg, .jpeg," in refusal(folder, num_classes=4)
    (folder / "dog" / "images").mkdir()
    assert "dog holds no images" in refusal(folder, num_classes=4)


def test_too_few_to_hold_out(tmp_path):
    for name in CLASSES:
        for i in range(4):
            save(tmp_path / name / f"{i}.png", i)
    assert "nothing to hold out" in refusal(tmp_path)


def test_wrong_held_out_parts(classes_folder, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(classes_folder, root / "train")
    assert "neither val nor test" in refusal(root)
    assert len(load(config(root / "train")).heldout) == 6  # as the sentence says
    (root / "test").mkdir()
    save(root / "test" / "0.png", 0)
    assert "test has no class folders" in refusal(root)
    save(root / "test" / "dog" / "0.png", 0)
    assert "test has the class 'dog', which train lacks" in refusal(root)


def test_an_unreadable_image_is_named_when_it_is_read(folder):
    content = (folder / "bee/01.JPG").read_bytes()
    (folder / "bee/01.JPG").write_bytes(content[: len(content) // 2])
    (folder / "cat/00.png").write_bytes(b"not an image")
    source = load(config(folder)).train
    assert source.read(np.arange(9))["images"].shape == (9, 8, 8, 3)
    for _ in range(3):  # the first of several, whatever thread is quickest
        with pytest.raises(UserError, match="bee/01.JPG cannot be read"):
            source.read(np.arange(24))
    with pytest.raises(UserError, match="cat/00.png is not an image"):
        source.read(np.array([16]))
