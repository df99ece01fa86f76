"""Scores of reconstructions: batches and padding change no number; weights that are not there."""

import jax
import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import EvaluationOptions
from sphere_jax.evaluation import fidelity as module
from sphere_jax.evaluation.features.base import Features
from sphere_jax.evaluation.fidelity import BATCH, Fidelity
from sphere_jax.evaluation.frechet import frechet_distance_of
from sphere_jax.evaluation.reconstruction import mean_psnr, ssim
from sphere_jax.evaluation.statistics import Statistics
from sphere_jax.models.lpips import LPIPS
from sphere_jax.nn.functional import Network
from sphere_jax.weights.stored import write_weights


class Means(Features):
    """Means of the channels in the place of a published network's features."""

    name = "means"

    def features(self, images, batch_size):
        starts = range(0, len(images), batch_size)
        means = [images[i : i + batch_size].mean((1, 2), np.float64) for i in starts]
        return np.concatenate(means).astype(np.float32)


class OnDisk:
    """Images that are read where they are indexed, by a slice, a batch at a time in memory."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        assert index.stop - index.start <= BATCH
        return self.array[index]


def pair(count, side=8, channels=3, seed=0):
    """Images and their reconstructions: darker, and noisy."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, side, side, channels), np.uint8)
    noise = rng.integers(0, 30, images.shape)
    return images, np.clip(0.8 * images + noise, 0, 255).astype(np.uint8)


def test_the_distance_is_that_of_all_features_at_once():
    images, others = pair(600)
    fidelity = Fidelity(None, Means())
    moments = fidelity.moments(OnDisk(images))
    found = fidelity.scores(OnDisk(images), OnDisk(others), moments)
    assert set(found) == {"psnr", "frechet_distance_means"}  # SSIM needs 11 pixels
    whole = [Statistics.of(Means().features(x[:300], 300)) for x in (images, others)]
    rest = [Statistics.of(Means().features(x[300:], 300)) for x in (images, others)]
    expected = frechet_distance_of(*(a.merge(b) for a, b in zip(whole, rest, strict=True)))
    assert expected > 10  # darker by tens of grey levels
    np.testing.assert_allclose(found["frechet_distance_means"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["psnr"], mean_psnr(others, images), rtol=1e-5)
    assert abs(fidelity.scores(images, images, moments)["frechet_distance_means"]) < 1e-6


@pytest.fixture
def narrow(monkeypatch):
    """LPIPS-AlexNet of a few channels, with weights."""
    network = Network(lambda rngs: LPIPS("alex", rngs=rngs, widths=(4, 6, 6, 4, 4)))
    monkeypatch.setattr(module, "_lpips", lambda: network)
    return network, network.init(jax.random.key(0))


def test_a_batch_that_is_not_full_is_exact(narrow):
    network, params = narrow
    images, others = pair(BATCH + 1, side=32, channels=1)
    found = Fidelity(params, None).scores(images, others, None)
    assert set(found) == {"psnr", "ssim", "lpips"}
    x, y = (np.repeat(z / np.float32(127.5) - 1, 3, axis=-1) for z in (images, others))
    distances = jax.jit(network.apply)(params, x, y)  # all in one batch
    assert np.std(distances) > 0
    np.testing.assert_allclose(found["lpips"], np.mean(distances), rtol=1e-4)
    np.testing.assert_allclose(found["ssim"], np.mean(ssim(images, others)), rtol=1e-5)
    np.testing.assert_allclose(found["psnr"], mean_psnr(others, images), rtol=1e-5)


def test_metrics_need_their_weights(narrow, tmp_path):
    network, params = narrow
    file = tmp_path / "lpips.safetensors"
    write_weights(file, params, "lpips_alexnet", "random")
    loaded = Fidelity.load(EvaluationOptions(lpips=str(file)), (32, 32, 3))
    jax.tree.map(np.testing.assert_array_equal, loaded.lpips, jax.tree.map(np.asarray, params))
    assert loaded.features is None and loaded.moments(pair(2)[0]) is None
    nothing = Fidelity.load(EvaluationOptions(), (32, 32, 3))
    assert nothing.lpips is None and nothing.features is None
    with pytest.raises(UserError, match="does not give the weights of 'lpips_alexnet'"):
        Fidelity.load(EvaluationOptions(lpips=str(tmp_path / "none.safetensors")), (32, 32, 3))
    published = EvaluationOptions(features="efficientnet_lite0", pretrained=str(file))
    with pytest.raises(UserError, match="it holds 'lpips_alexnet'"):
        Fidelity.load(published, (32, 32, 3))
