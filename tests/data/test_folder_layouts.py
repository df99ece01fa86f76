"""Layouts of folders that people have: splits in other words, pictures without classes."""

import os

import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of

from sphere_jax.config.options import DataOptions
from sphere_jax.data.class_names import classes_of, read_classes, write_classes
from sphere_jax.data.source import load


def put(folder, count=10):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (i,) * 3).save(folder / f"{i}.png")


def options(root, num_classes=0, **more) -> DataOptions:
    return DataOptions(
        source="folder", path=str(root), image_size=8, channels=3, num_classes=num_classes, **more
    )


def counts(root, **more) -> tuple[list[int], list[int]]:
    """Of every class, trained on and held out."""
    split = load(options(root, **more))
    return tuple(np.bincount(part.labels).tolist() for part in (split.train, split.heldout))


@pytest.mark.parametrize(
    ("train", "heldout", "unread"),
    [
        ("training", "testing", None),
        ("Train", "Val", "Test"),
        ("train", "validation", "testing"),
    ],
)
def test_parts_in_other_words(tmp_path, capsys, train, heldout, unread):
    for part, count in ((train, 6), (heldout, 3), (unread, 2)):
        for name in "01" if part else "":
            put(tmp_path / part / name, count)
    assert counts(tmp_path) == ([6, 6], [3, 3])
    out = capsys.readouterr().out
    assert f"trained on {train}/, held out {heldout}/" in out
    assert unread is None or f"'{unread}' is not read" in out
    assert classes_of(options(tmp_path)).names == ("0", "1")


def test_pictures_without_classes_are_one(tmp_path, capsys):
    put(tmp_path)
    assert counts(tmp_path) == ([8], [2]) == counts(tmp_path, num_classes=1)
    assert "pictures without class folders are one class" in capsys.readouterr().out
    assert (found := classes_of(options(tmp_path))).count == 1 and found.names == ()
    words = refusal_of(load, options(tmp_path, 10))
    assert "num_classes=10; its pictures without classes are one class" in words


def test_parts_of_pictures_without_classes(tmp_path):
    put(tmp_path / "train")
    put(tmp_path / "val", 3)
    assert counts(tmp_path) == ([10], [3])
    put(tmp_path / "bus")  # now these are classes
    assert counts(tmp_path) == ([8, 8, 3], [2, 2])


def test_numbered_folders_are_classes_unless_labels_are_none(tmp_path, capsys):
    for name in ("00000", "01000"):
        put(tmp_path / name)
    assert counts(tmp_path) == ([8, 8], [2, 2])
    assert "if they are no classes, give config.data.labels='none'" in capsys.readouterr().out
    assert counts(tmp_path, labels="none") == ([16], [4])
    assert classes_of(options(tmp_path, labels="none")).count == 1
    words = refusal_of(load, options(tmp_path, 1))
    assert "config.data.labels='none' takes all pictures as one class" in words


def test_tiny_imagenet(tmp_path, capsys):
    for name in ("n01", "n02"):
        put(tmp_path / "train" / name / "images", 5)
    put(tmp_path / "val" / "images", 3)
    assert "val has the class 'images', which train lacks" in refusal_of(load, options(tmp_path))
    lines = [f"{i}.png\tn0{1 + (i > 0)}\t0\t32\t44\t62\n" for i in range(3)]
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    (tmp_path / "words.txt").write_text("n01\ttench, Tinca tinca\nn02\tgoldfish\nn03\tshark\n")
    assert counts(tmp_path) == ([5, 5], [1, 2])
    assert "classes read from val_annotations.txt" in capsys.readouterr().out
    held = load(options(tmp_path)).heldout.arrays["images"].names.tolist()
    assert held == [f"val/images/{i}.png" for i in range(3)]
    assert classes_of(options(tmp_path)).all_shown == ["n01 tench", "n02 goldfish"]
    (tmp_path / "val" / "val_annotations.txt").write_bytes("café\n".encode("latin-1"))
    assert "gives images/0.png no class that is in train" in refusal_of(load, options(tmp_path))
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines[:2]))
    assert "gives images/2.png no class that is in train" in refusal_of(load, options(tmp_path))


def test_names_beyond_ascii(tmp_path):
    root = tmp_path / "uni ünï=1,2"
    for name in ("clåss ä b", "猫"):
        put(root / name)
    assert counts(root) == ([8, 8], [2, 2])
    assert classes_of(options(root)).names == ("clåss ä b", "猫")


def test_names_that_are_no_text(tmp_path):
    for name in (b"caf\xe9", b"tea"):
        put(tmp_path / os.fsdecode(name))
    found = classes_of(options(tmp_path))
    assert found.all_shown == ["caf?", "tea"]
    write_classes(tmp_path / ".run", found)
    assert read_classes(tmp_path / ".run") == found
    split = load(options(tmp_path))
    assert split.train.arrays["images"][:1].shape == (1, 8, 8, 3) and split.train.fingerprint


def test_an_empty_class_is_said(tmp_path, capsys):
    for part, count in (("train", 5), ("val", 2)):
        for name in "ab":
            put(tmp_path / part / name, count)
    (tmp_path / "val" / "b" / "0.png").unlink()
    (tmp_path / "val" / "b" / "1.png").unlink()
    assert counts(tmp_path) == ([5, 5], [2])
    assert "no images in 'b'" in capsys.readouterr().out
    (tmp_path / "train" / "c").mkdir()
    assert "c holds no images" in refusal_of(load, options(tmp_path))
    for file in (tmp_path / "val").rglob("*.png"):
        file.unlink()
    (tmp_path / "train" / "c").rmdir()
    assert "nothing to hold out" in refusal_of(load, options(tmp_path))
