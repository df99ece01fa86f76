"""Stratified noise radii (docs/systems/sphere_encoder.md#noise)."""

import jax
import numpy as np
import pytest

from sphere_jax.sampling import stratified


@pytest.mark.parametrize(("size", "group"), [(16, 16), (64, 16), (12, 3), (512, 512)])
def test_every_group_has_both_ends_and_every_stratum(size, group):
    rows = np.asarray(stratified(jax.random.key(0), size, group)).reshape(-1, group)
    assert ((rows == 0).sum(1) == 1).all() and ((rows == 1).sum(1) == 1).all()
    inner = np.sort(rows, axis=1)[:, 1:-1] * (group - 2)
    np.testing.assert_array_equal(np.floor(inner), np.arange(group - 2)[None].repeat(len(rows), 0))
    assert (inner - np.floor(inner)).min() >= 1e-3 - 1e-4


def test_order_is_random_and_uniform():
    many = [np.asarray(stratified(jax.random.key(i), 16, 8)) for i in range(200)]
    assert len({int(np.argmax(rows[:8])) for rows in many}) == 8
    assert abs(np.mean(many) - 0.5) < 0.01
    rows = np.asarray(stratified(jax.random.key(0), 64, 8)).reshape(8, 8)
    assert len({tuple(np.argsort(row)) for row in rows}) > 4  # every group has an order of its own


def test_groups_must_divide():
    for size, group in ((16, 5), (16, 2)):
        with pytest.raises(ValueError, match="must divide"):
            stratified(jax.random.key(0), size, group)
