"""Published networks as features, with random weights; their scores end to end are a run's."""

from pathlib import Path

import jax
import numpy as np
import pytest
from sphere_jax.config.options.run import Features

from sphere_jax.distribution.mesh import batch_sharding, make_mesh
from sphere_jax.evaluation import features as module
from sphere_jax.evaluation.features import KINDS, PublishedFeatures, imagenet_input, lite_input
from sphere_jax.evaluation.score_tables import describe
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import write_weights

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """EfficientNet-Lite0 with random weights in a converted file."""
    file = tmp_path_factory.mktemp("weights") / "lite.safetensors"
    entry, rng = catalogue()["efficientnet_lite0"], np.random.default_rng(0)
    shapes = jax.eval_shape(entry.network().init, jax.random.key(0))
    params = jax.tree.map(lambda s: rng.uniform(0.01, 0.1, s.shape).astype("f4"), shapes)
    write_weights(file, params, "efficientnet_lite0", "random")
    return file


def images(count, channels=3):
    return np.random.default_rng(1).integers(0, 256, (count, 16, 16, channels), np.uint8)


def test_features_do_not_depend_on_the_batch_or_the_mesh(lite):
    network = PublishedFeatures.load("efficientnet_lite0", str(lite), (16, 16, 3))
    assert len(network.fingerprint) == 16
    found = network.features(images(3), batch_size=2)
    assert found.shape == (3, 1280) and found.dtype == np.float32 and np.all(np.isfinite(found))
    sharded = network.features(images(3), batch_size=2, sharding=batch_sharding(make_mesh()))
    np.testing.assert_allclose(sharded, found, rtol=1e-5, atol=1e-5 * np.abs(found).max())
    with pytest.raises(ValueError, match=r"Images must be \(16, 16, 3\) here"):
        network.features(images(3, 1))


def test_grey_images_are_repeated(monkeypatch):
    """Through a network that returns what it is given."""
    monkeypatch.setitem(KINDS, "mirror", module.Kind(lambda x: x, lambda _, x: x.mean((1, 2))))

    class Mirror:
        def bind(self, params):
            return None

    network = PublishedFeatures("mirror", "", (16, 16, 1), Mirror(), {"w": np.zeros(1)})
    grey = images(3, 1)
    expected = np.repeat(grey.mean((1, 2)), 3, axis=1)
    np.testing.assert_allclose(network.features(grey, 2), expected, rtol=1e-5)


def test_inputs_are_normalised():
    flat = np.full((1, 8, 8, 3), 127, np.uint8)
    np.testing.assert_allclose(lite_input(flat), np.zeros((1, 224, 224, 3)), atol=1e-5)
    white = imagenet_input(np.full((1, 8, 8, 3), 255, np.uint8))[0, 0, 0]
    np.testing.assert_allclose(white, [2.2489, 2.4286, 2.64], atol=1e-3)


def test_every_choice_of_the_config_is_a_kind():
    assert set(Features.__args__) == {"small_classifier", *KINDS}
    assert set(KINDS) <= set(catalogue())


def test_only_inceptions_distance_is_called_fid():
    for name in KINDS:
        assert ("FID" in describe(f"frechet_distance_{name}")[0]) == (name == "inception_fid")
