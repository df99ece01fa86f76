"""Published networks as features, with random weights; their scores end to end are a run's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.config.options import EvaluationOptions, features_of
from sphere_jax.distribution.mesh import batch_sharding, make_mesh
from sphere_jax.evaluation.features import dinov3_vits16, efficientnet_lite0
from sphere_jax.evaluation.features.published import Published, PublishedFeatures
from sphere_jax.evaluation.score_tables import describe
from sphere_jax.nn.functional import Network
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import write_weights

KNOWN = plugins.known("evaluation.features", "FEATURES")


def named(name):
    return features_of(EvaluationOptions(features=name))


MEANS = """
import numpy as np

from sphere_jax.evaluation.features.base import FeatureNetwork, Features


class Means(Features):
    name, fingerprint, accuracy, trained_with = "my_package.means", "0" * 16, None, None

    def features(self, images, batch_size=64, sharding=None):
        return images.mean((1, 2)).astype(np.float32)


class MeanColours(FeatureNetwork):
    needs_weights = semantic = False
    distance_title = "Distance of mean colours"

    def train(self, images, labels, num_classes, evaluation):
        return Means()


FEATURES = MeanColours("my_package.means")
"""


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """EfficientNet-Lite0 with random weights in a converted file."""
    file = tmp_path_factory.mktemp("weights") / "lite.safetensors"
    entry, rng = catalogue()["efficientnet_lite0"], np.random.default_rng(0)
    shapes = jax.eval_shape(entry.network().init, jax.random.key(0))
    params = jax.tree.map(lambda s: rng.uniform(0.01, 0.1, s.shape).astype("f4"), shapes)
    write_weights(file, params, "efficientnet_lite0", "random")
    return file


@pytest.fixture(scope="module")
def network(lite):
    return named("efficientnet_lite0").load(str(lite), (16, 16, 3))


def images(count, channels=3):
    return np.random.default_rng(1).integers(0, 256, (count, 16, 16, channels), np.uint8)


def test_features_do_not_depend_on_the_batch_or_the_mesh(network):
    assert len(network.fingerprint) == 16
    found = network.features(images(3), batch_size=2)
    assert found.shape == (3, 1280) and found.dtype == np.float32 and np.all(np.isfinite(found))
    sharded = network.features(images(3), batch_size=2, sharding=batch_sharding(make_mesh()))
    np.testing.assert_allclose(sharded, found, rtol=1e-5, atol=1e-5 * np.abs(found).max())
    with pytest.raises(ValueError, match=r"Images must be \(16, 16, 3\) here"):
        network.features(images(3, 1))


def test_the_most_likely_class_is_that_of_the_network(network):
    features = np.random.default_rng(2).uniform(0, 1, (3, 1280)).astype(np.float32)
    logits = network.network.bind(network.params).classifier(features)
    np.testing.assert_array_equal(network.classes(features), np.argmax(logits, -1))


class Mirror(Published):
    """A network that returns what it is given."""

    outputs = ("features", "first")

    def prepare(self, images):
        return images

    def read(self, module, x):
        return {"features": x.mean((1, 2)), "first": x[:, 0, 0]}


class NoModule(Network):
    def __init__(self):
        pass

    def bind(self, params):
        return None


def mirror(shape):
    return PublishedFeatures(Mirror("mirror"), "", shape, NoModule(), {"w": np.zeros(1)})


def test_grey_images_are_repeated():
    network, grey = mirror((16, 16, 1)), images(3, 1)
    expected = np.repeat(grey.mean((1, 2)), 3, axis=1)
    np.testing.assert_allclose(network.features(grey, 2), expected, rtol=1e-5)
    assert network.classes(expected.astype(np.float32)) is None
    with pytest.raises(ValueError, match=r"Images must be \(16, 16, 1\) here"):
        network.features(images(3))


def test_a_batch_of_any_size_stays_on_its_devices():
    network, sharding = mirror(None), batch_sharding(make_mesh())
    found = network.batch(images(4), ("features", "first"), sharding)
    for name, values in (("features", images(4).mean((1, 2))), ("first", images(4)[:, 0, 0])):
        assert isinstance(found[name], jax.Array) and found[name].dtype == np.float32
        assert found[name].sharding.is_equivalent_to(sharding, 2)
        np.testing.assert_allclose(found[name], values, rtol=1e-5)
    wide = jnp.asarray(images(4)[:, :8])
    assert list(network.batch(wide)) == ["features"]
    inside = jax.jit(lambda params, x: network.compute(params, x, ("first",)))(network.params, wide)
    np.testing.assert_array_equal(inside["first"], images(4)[:, 0, 0])
    with pytest.raises(ValueError, match="mirror has no output 'logits', but features, first"):
        network.batch(images(4), ("logits",))


def test_inputs_are_normalised():
    flat = jnp.full((1, 8, 8, 3), 127, jnp.uint8)
    np.testing.assert_allclose(
        efficientnet_lite0.FEATURES.prepare(flat), np.zeros((1, 224, 224, 3)), atol=1e-5
    )
    white = dinov3_vits16.FEATURES.prepare(jnp.full((1, 8, 8, 3), 255, jnp.uint8))[0, 0, 0]
    np.testing.assert_allclose(white, [2.2489, 2.4286, 2.64], atol=1e-3)


def test_networks_are_found_by_name():
    assert {"small_classifier", "inception_fid", "dinov2_vitb14_reg", "dinov3_vitb16"} <= set(KNOWN)
    for name in KNOWN:
        assert named(name).name == name
        network = named(name)
        assert network.needs_weights == isinstance(network, Published)
        assert not network.needs_weights or network.weights in catalogue()
        assert network.outputs[0] == "features"
    with pytest.raises(UserError, match="did you mean 'dinov3_vitb16'?"):
        named("dinov3_vitb14")


def test_only_inceptions_distance_is_called_fid():
    for name in KNOWN:
        inception = name.startswith("inception_")
        assert ("FID" in describe(f"frechet_distance_{name}")[0]) == inception
    assert describe("recall_lost")[0] == "Recall (real inside generated), lost features"


def test_a_network_of_another_package(tmp_path, monkeypatch):
    """Found, named in tables and scored with, without a word about it here."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "means.py").write_text(MEANS)
    monkeypatch.syspath_prepend(tmp_path)
    network = named("my_package.means")
    found = network.train(images(4), np.arange(4) % 2, 2, EvaluationOptions())
    assert found.features(images(4)).shape == found.batch(images(4))["features"].shape == (4, 3)
    with pytest.raises(ValueError, match="my_package.means has no output but 'features': logits"):
        found.batch(images(4), ("logits",))
    assert describe(f"frechet_distance_{network.name}")[0] == "Distance of mean colours"
    assert describe(f"recall_{network.name}")[0] == "Recall (real inside generated), means features"


def test_a_network_of_the_catalogue_is_one_object():
    """What is compiled for it is compiled once, however often it is loaded."""
    entry = catalogue()["efficientnet_lite0"]
    assert entry.network() is entry.network()
    half = jnp.dtype("bfloat16")
    assert entry.network(dtype=half) is entry.network(dtype=half) is not entry.network()
