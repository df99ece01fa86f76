"""The noise of a sample is a function of (key, index): the same bits in any batch on any mesh."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.sampling import sample_noise

SHAPE = (4, 4, 5)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def noise():
    return np.asarray(sample_noise(KEY, jnp.arange(32), SHAPE))


def test_it_is_standard_gaussian(noise):
    wide = np.asarray(sample_noise(KEY, jnp.arange(32), (40, 40)), np.float64)
    assert noise.shape == (32, *SHAPE) and noise.dtype == np.float32
    assert abs(wide.mean()) < 0.02 and abs(wide.std() - 1) < 0.02
    rows = np.corrcoef(wide.reshape(32, -1))
    assert np.max(np.abs(rows - np.eye(32))) < 0.15


@pytest.mark.parametrize("indices", [[0], [5], [31, 2, 7], list(range(3, 20))])
def test_any_batch_in_any_order_has_the_same_bits(noise, indices):
    np.testing.assert_array_equal(sample_noise(KEY, jnp.array(indices), SHAPE), noise[indices])


def test_jit_has_the_same_bits_even_when_fused_with_what_follows(noise):
    def fused(key, indices):
        e = sample_noise(key, indices, SHAPE)
        return e, 0.3 * e + 0.7, jnp.sum(e**2)

    np.testing.assert_array_equal(jax.jit(fused)(KEY, jnp.arange(32))[0], noise)


def test_another_key_or_index_is_another_draw(noise):
    assert not np.any(sample_noise(jax.random.key(8), jnp.arange(32), SHAPE) == noise)
    assert len(np.unique(noise)) > 0.99 * noise.size


SHARDED = """
import jax, numpy as np, sys
from sphere_jax.sampling import sample_noise
mesh = jax.make_mesh((4, 2), ("data", "model"))
for spec in (("data",), (("data", "model"),)):
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    draw = jax.jit(lambda key, i: sample_noise(key, i, (4, 4, 5)), out_shardings=rows)
    indices = jax.device_put(np.arange(32), rows)
    sys.stdout.buffer.write(np.asarray(draw(jax.random.key(7), indices)).tobytes())
"""


@pytest.mark.slow
def test_sharding_has_the_same_bits(noise):
    inherited = os.environ.get("XLA_FLAGS", "")  # the same compiler options on both sides
    flags = f"{inherited} --xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "."},
        capture_output=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr.decode()
    drawn = np.frombuffer(run.stdout, np.float32).reshape(2, *noise.shape)
    for one in drawn:
        np.testing.assert_array_equal(one, noise)
