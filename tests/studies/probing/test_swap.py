"""Neighbours of one class, and the recombination of norms and directions."""

import numpy as np
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.data.source import Source
from sphere_jax.studies.probing.swap import choose, partners, recombine


def test_neighbours_are_others_of_the_class():
    labels = np.random.default_rng(0).integers(0, 7, 60)
    labels[5] = 99  # alone
    a, b = partners(labels, seed=3)
    assert 5 not in a and (a != b).all()
    np.testing.assert_array_equal(labels[a], labels[b])
    assert sorted(b) == sorted(a)  # each is one's neighbour
    np.testing.assert_array_equal(partners(labels, 3)[1], b)
    assert (partners(labels, 4)[1] != b).any()


def test_recombination():
    a, b = np.random.default_rng(1).standard_normal((2, 3, 4, 4, 8)).astype(np.float32)
    np.testing.assert_allclose(recombine(a, a), a, rtol=1e-5, atol=1e-6)
    mixed = np.asarray(recombine(b, a))
    norm = np.linalg.norm
    np.testing.assert_allclose(norm(mixed, axis=-1), norm(b, axis=-1), rtol=1e-5)
    cosine = (mixed * a).sum(-1) / norm(mixed, axis=-1) / norm(a, axis=-1)
    np.testing.assert_allclose(cosine, 1.0, rtol=1e-5)
    assert not np.asarray(recombine(b, np.zeros_like(a))).any()


def test_the_choice_of_images_is_a_function_of_the_seed():
    images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    source = Source({"images": images, "labels": np.arange(40, dtype=np.int32) % 4})
    chosen, labels = choose(source, 10, 0)
    assert len(chosen) == 10 and (np.diff(chosen.ravel()) > 0).all()
    np.testing.assert_array_equal(labels, chosen.ravel() % 4)
    np.testing.assert_array_equal(choose(source, 10, 0)[0], chosen)
    assert (choose(source, 10, 1)[0] != chosen).any()
    assert len(choose(source, 1000, 0)[0]) == 40
    with pytest.raises(UserError, match="no two of one class"):
        choose(Source({"images": images[:4], "labels": np.arange(4)}), 9, 0)
