"""Verdicts on decoders that read directions alone, or norms alone; the distances below them."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.evaluation.features.base import Features
from sphere_jax.geometry import sphere
from sphere_jax.studies.probing import swap
from sphere_jax.studies.probing.claims import claims, mean
from sphere_jax.studies.probing.distances import Comparison, Pictures
from sphere_jax.studies.probing.measure import Probe
from sphere_jax.studies.probing.paths import Shell


@dataclasses.dataclass(frozen=True)
class Toy:
    """Pixels as tokens of three channels; the decoder sees what `reads` names."""

    reads: str
    latent_shape: ClassVar = (8, 8, 3)
    image_shape: ClassVar = (8, 8, 3)
    parts: ClassVar = ()

    def encode(self, params, images):
        return images

    def decode(self, params, z):
        if self.reads == "direction":
            return sphere.normalize(z)
        return jnp.broadcast_to(sphere.safe_norm(z)[..., None] / 2 - 0.5, z.shape)


def probe(reads, batch=8, seed=0):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    compare = Comparison(None, None, make_mesh(), batch)
    lines = []
    found = Probe(Toy(reads), {}, compare, seed, lines.append)(images, np.arange(20) % 4)
    assert len(lines) > 20 and "img/s" in lines[0]
    return found


@pytest.fixture(scope="module")
def directions():
    return probe("direction")


def verdicts(probed):
    return [claim.shown for claim in claims(probed)]


def test_a_decoder_of_directions_shows_what_the_papers_claim(directions):
    near, far, follows, matched, fixed, breaks = verdicts(directions)[3:]
    assert (near, far, follows, matched, fixed, breaks) == ("yes",) * 6
    scores = directions.swaps[swap.RADIUS]["a"]
    np.testing.assert_allclose(scores["error"], scores["error"].min(), rtol=1e-3)  # rounding's


def test_a_decoder_of_norms_shows_the_opposite():
    near, far, follows, matched, fixed, breaks = verdicts(probe("norm"))[3:]
    assert (near, far, follows, matched, fixed, breaks) == ("no",) * 6


def test_a_path_that_stays_near_thick_shells_is_reported(directions):
    """That slerp keeps its norm does not make a claim on the straight path shown in part."""
    thick = {name: Shell(s.radius, s.radius) for name, s in directions.shells.items()}
    assert verdicts(dataclasses.replace(directions, shells=thick))[:2] == ["no", "no"]
    thin = {name: Shell(s.radius, 0.01) for name, s in directions.shells.items()}
    assert verdicts(dataclasses.replace(directions, shells=thin))[:2] == ["yes", "yes"]


def test_samples_depend_on_the_seed_but_not_on_the_batch_size(directions):
    other = probe("direction", batch=5)
    for kind, by_eta in directions.matched.items():
        for eta, scores in by_eta.items():
            np.testing.assert_allclose(other.matched[kind][eta]["psnr"], scores["psnr"], rtol=1e-3)
    assert not np.array_equal(
        probe("direction", seed=1).matched["angular"][0.2]["psnr"],
        directions.matched["angular"][0.2]["psnr"],
    )


class Semantic(Features):
    """Features that are the mean colour; the class is its strongest channel."""

    name, fingerprint = "colour", "0"

    def features(self, images, batch_size, sharding):
        return images.mean((1, 2)).astype(np.float32)

    def classes(self, features):
        return features.argmax(-1)


def test_semantic_distance_and_agreement():
    compare = Comparison(None, Semantic(), make_mesh(), 2)
    red, green = np.zeros((2, 3, 4, 4, 3), np.uint8)
    red[..., 0], green[..., 1] = 255, 255
    red[2] = green[2]
    found = compare(compare.with_features(red), compare.with_features(green))
    np.testing.assert_allclose(found["semantic"], [1, 1, 0], atol=1e-9)
    np.testing.assert_array_equal(found["agreement"], [0, 0, 1])
    np.testing.assert_allclose(found["error"][:2], np.sqrt(2 / 3), rtol=1e-5)
    assert found["psnr"][2] > 58
    assert set(compare(Pictures(red), Pictures(green))) == {"psnr", "error"}
    assert "no --lpips" in compare.networks["LPIPS"]


def test_means_have_standard_errors():
    assert mean(np.array([1.0, 3.0])) == (2.0, 1.0)
    assert str(mean(np.array([1.0, 3.0]))) == "2.000 ± 1.000"
