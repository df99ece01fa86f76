"""Names of classes: read with the data, stored beside what is made of it, spoken in --labels."""

import json

import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax.config.config_files import load_config
from sphere_jax.config.options import DataOptions
from sphere_jax.data.class_names import (
    Classes,
    classes_of,
    parse_labels,
    read_classes,
    titles_beside,
    with_classes_counted,
    write_classes,
)
from sphere_jax.data.record_writer import write_images
from sphere_jax.data.source import load

FISH = Classes(
    4,
    ("n01440764", "n01443537", "n02012849", "n03126707"),
    ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane"),
)
PETS = Classes(3, ("Cat", "Dog, small", "3"))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("0,1", [0, 1]),
        ("tench,n01443537", [0, 1]),
        ("Carassius auratus, 2", [1, 2]),
        ("n01440764 tench,n03126707 crane,4", [0, 3, 4]),
        ("tench, Tinca tinca,goldfish", [0, 1]),
        ("", []),
    ],
)
def test_labels_by_name_and_number(text, labels):
    assert parse_labels(text, FISH) == labels


def test_names_with_commas_capitals_and_digits():
    assert parse_labels("cat,Dog, small,Cat", PETS) == [0, 1, 0]
    assert parse_labels("1,label:3,name:3", PETS) == [1, 3, 2]
    words = refusal_of(parse_labels, "3", PETS)
    assert "'3' is the name of label 2; write name:3, or label:3" in words
    digits = Classes(10, tuple("0123456789"))
    assert parse_labels("3,9,10", digits) == [3, 9, 10]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crane", "'crane' is n02012849 crane (label 2) and n03126707 crane (label 3)"),
        ("goldfisch", "no class is called 'goldfisch'; did you mean 'goldfish'?"),
        ("xyz", "no class is called 'xyz'; the first is 'n01440764 tench'."),
        ("5", "must be 0..3, or 4 for no class"),
        ("-1", "must be 0..3"),
        ("name:4", "no class is called '4'"),
    ],
)
def test_labels_that_no_class_has(text, words):
    assert words in refusal_of(parse_labels, text, FISH)


def test_labels_of_classes_without_names():
    assert "must be numbers, say 0,1,2" in refusal_of(parse_labels, "cat", Classes(3))


def test_what_is_printed():
    assert FISH.lines()[1] == "label 1 = n01443537 goldfish" and len(FISH.lines()) == 4
    many = Classes(1000, tuple(f"n{i}" for i in range(1000)))
    assert many.lines()[-2:] == ["label 4 = n4", "... and 995 more classes"]
    assert Classes(10, tuple("0123456789")).lines() == Classes(2).lines() == []
    assert Classes(3, ("a", "b")).all_shown == ["a", "b", "2"]


def test_names_are_stored_and_read_back(tmp_path):
    for classes in (FISH, PETS):
        write_classes(tmp_path, classes)
        assert read_classes(tmp_path) == classes
    assert read_classes(tmp_path, 5) == Classes(5, PETS.names)
    assert "names 3 classes, and there are 2" in refusal_of(read_classes, tmp_path, 2)
    assert read_classes(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", ["{", "[]", "3", "[3]", '[["a"]]', '{"a": null}', '{"1": "a"}'])
def test_a_file_that_names_no_classes(tmp_path, content):
    (tmp_path / "classes.json").write_text(content)
    assert "classes.json does not name classes; it must be" in refusal_of(read_classes, tmp_path)


def test_the_form_of_keras_is_read(tmp_path):
    table = {str(label): [FISH.names[label], FISH.titles[label]] for label in range(4)}
    (tmp_path / "classes.json").write_text(json.dumps(table))
    assert read_classes(tmp_path) == FISH


@pytest.mark.parametrize(
    "content",
    [
        {"a": "tench, Tinca tinca", "c": "crane"},
        [["a", "tench, Tinca tinca"], ["b", ""]],
        {"0": ["a", "tench, Tinca tinca"]},
    ],
)
def test_words_beside_class_folders(tmp_path, capsys, content):
    (tmp_path / "classes.json").write_text(json.dumps(content))
    folders = (tmp_path / "train", tmp_path)
    assert titles_beside(folders, ("a", "b")) == ("tench, Tinca tinca", "")
    (tmp_path / "classes.json").write_text(json.dumps(["ape", "bee"]))
    assert titles_beside(folders, ("0", "1")) == ("ape", "bee")
    (tmp_path / "classes.json").write_text(json.dumps({"a": 0}))
    assert titles_beside(folders, ("a", "b")) == ()
    assert "names of classes are those of their folders: " in capsys.readouterr().out


def npz(tmp_path, labels, num_classes=0, **arrays) -> DataOptions:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.asarray(labels), **arrays)
    path = str(tmp_path / "data.npz")
    return DataOptions(source="npz", path=path, image_size=8, num_classes=num_classes)


@pytest.mark.parametrize("key", ["classes", "class_names"])
def test_names_of_an_npz(tmp_path, key):
    labels = np.arange(20) % 2
    for names in (np.array(["ape", "bee"]), np.array([b"ape", b"bee"])):
        assert classes_of(npz(tmp_path, labels, **{key: names})).names == ("ape", "bee")
    data = npz(tmp_path, labels, 1, **{key: np.array(["ape", "bee"])})
    assert "has 2 classes but config.data.num_classes=1" in refusal_of(classes_of, data)
    objects = npz(tmp_path, labels, **{key: np.array(["ape", 3], object)})
    assert classes_of(objects) == Classes(2)


def test_labels_that_run_from_one(tmp_path, capsys):
    labels = np.arange(20) % 2 + 1
    for count in (0, 2):
        split = load(npz(tmp_path, labels, count))
        assert np.bincount(split.train.labels).tolist() == [8, 8]
        assert "run from 1 to 2; here they are 0 to 1" in capsys.readouterr().out
    assert classes_of(npz(tmp_path, labels)).count == 2
    words = refusal_of(load, npz(tmp_path, labels, 3))
    assert "class 0 would have no example; give config.data.num_classes=2" in words


def test_labels_with_gaps(tmp_path, capsys):
    labels = np.arange(20) % 2 * 7
    words = refusal_of(load, npz(tmp_path, labels))
    assert "6 of these classes have no training example, 1 the first" in words
    load(npz(tmp_path, labels, 10))
    said = "8 of 10 classes have no training example: 1, 2, 3, 4, 5, ..."
    assert said in capsys.readouterr().out


def test_no_labels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "data.npz", images=images)
    data = DataOptions(
        source="npz", path=str(tmp_path / "data.npz"), image_size=8, num_classes=1, labels="none"
    )
    assert not load(data).train.labels.any() and len(load(data).heldout) == 2


def test_classes_are_counted(tmp_path):
    data = npz(tmp_path, np.arange(20) % 4)
    overrides = ["--config.data.source=npz", f"--config.data.path={data.path}"]
    config = load_config("configs/mnist_slerp.py", [*overrides, "--config.data.num_classes=0"])
    assert with_classes_counted(config).data.num_classes == 4
    assert with_classes_counted(load_config("configs/mnist_slerp.py")).data.num_classes == 10
    words = refusal_of(load_config, "configs/mnist_slerp.py", ["--config.data.num_classes=2000000"])
    assert "config.data.num_classes=2000000 must be at most 1000000" in words


@pytest.mark.parametrize("source", ["digits", "mnist5k", "cifar10"])
def test_classes_of_known_data(source):
    found = classes_of(DataOptions(source=source))
    assert found.count == len(found.names) == 10


def test_written_images_keep_their_names(tmp_path):
    data = npz(tmp_path, np.arange(20) % 2, class_names=np.array(["ape", "bee"]))
    write_images(data, tmp_path / "written", 10)
    found = DataOptions(
        source="array_record", path=str(tmp_path / "written"), image_size=8, num_classes=0
    )
    assert classes_of(found) == Classes(2, ("ape", "bee"))
    (tmp_path / "written" / "classes.json").unlink()
    assert classes_of(found) == Classes(2)
