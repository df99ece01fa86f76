"""Data sets of TensorFlow Datasets: prepared here as ArrayRecord, read without TensorFlow."""

import builtins
import io
import sys

import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of

from sphere_jax.config.options import DataOptions
from sphere_jax.data.source import load


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)


def prepared(tfds, folder, splits, labelled=True) -> str:
    """The folder of a data set with splits of these lengths; pictures are numbered throughout."""

    with tfds.core.registered.skip_registration():

        class Dots(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.2.0")

            def _info(self):
                features = {"image": tfds.features.Image(shape=(None, None, 3))}
                if labelled:
                    features["label"] = tfds.features.ClassLabel(num_classes=2)
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    disable_shuffling=True,
                )

            def _split_generators(self, _):
                starts = np.cumsum([0, *splits.values()])
                return {
                    name: self._generate_examples(range(start, start + count))
                    for start, (name, count) in zip(starts, splits.items(), strict=False)
                }

            def _generate_examples(self, numbers):
                for number in numbers:
                    file = io.BytesIO()
                    Image.fromarray(pixels(number)).save(file, "PNG")
                    file.seek(0)
                    yield number, {"image": file} | ({"label": number % 2} if labelled else {})

    Dots(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return str(folder / "dots" / "1.2.0")


@pytest.fixture(scope="module")
def tfds():
    import tensorflow_datasets  # an optional install, which requirements-parity.txt brings

    return tensorflow_datasets


def data(path, **options) -> DataOptions:
    return DataOptions(
        source="tfds", path=path, image_size=8, channels=3, num_classes=2, resize="adm", **options
    )


def fitted(number):
    picture = Image.fromarray(pixels(number)).resize((11, 8), Image.Resampling.BICUBIC)
    return np.asarray(picture.crop((1, 0, 9, 8)))


def refusal(options) -> str:
    return refusal_of(load, options)


@pytest.mark.parity
def test_a_prepared_data_set_is_read_record_by_record(tfds, tmp_path):
    split = load(data(prepared(tfds, tmp_path, {"train": 7, "validation": 3, "test": 2})))
    assert (len(split.train), len(split.heldout)) == (7, 3)
    for part, start in ((split.train, 0), (split.heldout, 7)):
        numbers = start + np.arange(len(part))
        np.testing.assert_array_equal(part.labels, numbers % 2)
        read = part.read(np.arange(len(part)))["images"]
        np.testing.assert_array_equal(read, [fitted(number) for number in numbers])
        np.testing.assert_array_equal(part.arrays["images"][1], fitted(start + 1))
    assert "tensorflow" not in sys.modules
    assert split.train.fingerprint != split.heldout.fingerprint


@pytest.mark.parity
def test_without_a_held_out_split_a_fifth_is_held_out(tfds, tmp_path):
    split = load(data(prepared(tfds, tmp_path, {"train": 20})))
    assert (len(split.train), len(split.heldout)) == (16, 4)
    np.testing.assert_array_equal(split.heldout.arrays["images"][0], fitted(8))


@pytest.mark.parity
def test_unusable_data_sets_are_user_errors(tfds, tmp_path):
    assert "names no data set" in refusal(data("cifar1"))
    assert "names no data set" in refusal(data(""))
    assert "names no data set" in refusal(data(str(tmp_path)))
    assert "not a data set of TensorFlow Datasets itself" in refusal(data("huggingface:mnist"))
    words = refusal(data("places365_small"))  # 29 GB that are hardly here
    assert "not prepared" in words and "tfds build places365_small --file_format" in words
    path = prepared(tfds, tmp_path, {"train": 6, "test": 2}, labelled=False)
    assert "not image and label" in refusal(data(path))
    path = prepared(tfds, tmp_path / "tests", {"test": 2})
    assert "no split train, but test" in refusal(data(path))
    path = prepared(tfds, tmp_path / "format", {"train": 6})
    info = tmp_path / "format" / "dots" / "1.2.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    assert "not as ArrayRecord" in refusal(data(path))


def test_without_the_package_the_error_names_what_to_install(monkeypatch):
    plain = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.startswith("tensorflow_datasets"):
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "pip install tensorflow-datasets==4.9.10" in refusal(data("cifar10"))
