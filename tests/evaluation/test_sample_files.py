"""Samples and references as people's samplers write them: refused with what to change."""

import numpy as np
import pytest
from refusals import refusal_of

from sphere_jax.data.array_checks import check_classes, check_images, check_labels, check_pixels
from sphere_jax.data.class_names import Classes
from sphere_jax.evaluation.sample_files import read_samples

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 3), np.uint8)
LABELS = np.arange(40) % 4
FLOAT = IMAGES.astype("f4")
ONES = np.ones((40, 8, 8, 3), np.uint8)


def samples(tmp_path, shape=(8, 8, 3), classes=4, names=(), **arrays):
    np.savez(tmp_path / "s.npz", **arrays)
    return str(tmp_path / "s.npz"), shape, Classes(classes, names)


def test_samples_as_they_should_be_in_random_order(tmp_path, capsys):
    images = np.repeat(np.arange(40, dtype=np.uint8), 50).reshape(-1, 1, 1, 1)
    given = samples(tmp_path, (1, 1, 1), 10, images=images, labels=images.ravel() // 4)
    found, labels = read_samples(*given)
    assert sorted(found.ravel()) == images.ravel().tolist()
    assert (labels == found.ravel() // 4).all() and set(labels[:200]) == set(range(10))
    assert read_samples(*samples(tmp_path, images=IMAGES))[1] is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("images", "mend"),
    [
        (IMAGES.transpose(0, 3, 1, 2), "save images.transpose(0, 2, 3, 1)."),
        (FLOAT / 255, "save numpy.round(numpy.clip(255 * images, 0, 255)).astype('uint8')"),
        (FLOAT / 127.4 - 1, "numpy.clip(127.5 * images + 127.5, 0, 255)"),
        (FLOAT, "numpy.clip(images, 0, 255)).astype('uint8') (values run from 0 to 255)"),
        (FLOAT.transpose(0, 3, 1, 2) / 255, "3, 1), then numpy.round(numpy.clip(255 * images"),
        (IMAGES > 9, "save 255 * images.astype('uint8')."),
        (IMAGES.astype(int), "save images.astype('uint8')."),
        ((FLOAT - 128).astype(np.int8), "(images.astype('int16') + 128).astype('uint8')"),
        (IMAGES.astype(np.uint16) * 257, "(images // 257).astype('uint8')"),
        (IMAGES.repeat(2, -1)[..., :4], "save images[..., :3], without transparency"),
    ],
)
def test_images_of_another_form(images, mend):
    sentence = refusal_of(check_images, images, "s.npz")
    assert sentence.startswith("Images of s.npz must be uint8") and mend in sentence


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (0 * ONES, "are all black"),
        (7 * ONES, "are of one value, 7, everywhere"),
        (IMAGES // 255, "hold only zeros and ones, so they were cast without a factor of 255"),
        (IMAGES // 128, "hold only zeros and ones"),
        (RNG.choice([0, 1, 255], IMAGES.shape).astype("u1"), "hold only the values 0, 1, 255, as"),
    ],
)
def test_values_that_were_cast_wrong(images, words):
    assert words in refusal_of(check_pixels, images, "s.npz")


def test_ordinary_values():
    check_pixels(IMAGES, "s.npz")
    check_pixels(255 * (IMAGES // 128), "s.npz")  # black and white
    check_pixels(np.concatenate([0 * IMAGES.repeat(20, 0), IMAGES]), "s.npz")


@pytest.mark.parametrize(
    ("labels", "mend"),
    [
        (LABELS[:, None], "save labels[:, 0]."),
        (np.eye(4)[LABELS], "save labels.argmax(axis=1)."),
        (np.array(["cat", "dog", "cow", "hen"])[LABELS], "numpy.unique(labels, return_inverse"),
        (LABELS.astype("f4"), "save labels.astype('int64')."),
        (LABELS + 0.5, "not float64 of shape (40,)."),
        (LABELS[1:], "not int64 of shape (39,)."),
        (np.full((40, 4), 0.25), "not float64 of shape (40, 4)."),
    ],
)
def test_labels_of_another_form(labels, mend):
    sentence = refusal_of(check_labels, labels, 40, "s.npz")
    assert "must be 40 integer labels" in sentence and mend in sentence


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS + 1, "run from 1 to 4, not from 0; save labels - 1."),
        (LABELS - 1, "run from -1 to 2, not from 0; save labels + 1."),
        (100 * LABELS, "are 4 numbers from 0 to 300 with gaps, not 0..3; save numpy.unique"),
    ],
)
def test_classes_of_a_reference(labels, words):
    assert words in refusal_of(check_classes, labels, "ref.npz")
    check_classes(LABELS, "ref.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": IMAGES.repeat(2, 1)}, "are 16x8 and those of the reference 8x8; resize"),
        ({"images": IMAGES[..., :1]}, "are grey and those of the reference RGB; save numpy.repeat"),
        ({"images": 0 * IMAGES}, "are all black"),
        ({"labels": LABELS + 1}, "run from 1 to 4 and those of the reference from 0 to 3; save"),
        ({"labels": 9 * LABELS}, "from 0 to 27 and those of the reference from 0 to 3; number"),
        ({"labels": 0 * LABELS + 4}, "are all 4, which stands for no class; leave 'labels' out"),
    ],
)
def test_samples_that_do_not_fit_the_reference(tmp_path, changes, words):
    given = samples(tmp_path, **({"images": IMAGES, "labels": LABELS} | changes))
    assert words in refusal_of(read_samples, *given)


def test_labels_by_name(tmp_path):
    names = np.array(["cat", "dog", "cow", "hen"])
    given = dict(images=IMAGES, labels=names[LABELS])
    _, numbers = read_samples(*samples(tmp_path, images=IMAGES, labels=LABELS))
    _, found = read_samples(*samples(tmp_path, names=tuple(names), **given))
    np.testing.assert_array_equal(found, numbers)
    others = samples(tmp_path, names=("cat", "dog", "cow", "heron"), **given)
    assert "name 'hen', no class here; did you mean 'heron'?" in refusal_of(read_samples, *others)
    assert "must be 40 integer labels" in refusal_of(read_samples, *samples(tmp_path, **given))


def test_missing_classes_are_said(tmp_path, capsys):
    read_samples(*samples(tmp_path, classes=12, images=IMAGES, labels=LABELS))
    assert "no image of 8 of the 12 classes of the reference (4, 5, 6, 7, 8, ...)" in (
        capsys.readouterr().out
    )
