"""flow-sphere's networks: counts, positions, the batch norm, and the public code in PyTorch
(docs/systems/flow_sphere.md#networks)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.flow_sphere import Decoder, Encoder, Refiner, time_rows
from sphere_jax.models.flow_sphere_layers import rope_angles
from sphere_jax.nn.functional import Network, num_parameters

SIZES = dict(patch=2, width=24, depth=2, heads=2, head_dim=8, hidden=40)
IMAGE, D = (8, 8, 3), 4


def networks(num_classes=0, normalize=True, rope="1d", time="table", context=True):
    shared = (IMAGE, D, *SIZES.values(), num_classes)
    streams = (D, SIZES["width"]) if context else None
    refiner = (IMAGE, streams, *SIZES.values(), num_classes)
    return (
        Network(lambda rngs: Encoder(*shared, normalize=normalize, rope=rope, rngs=rngs)),
        Network(lambda rngs: Decoder(*shared, rope=rope, rngs=rngs)),
        Network(lambda rngs: Refiner(*refiner, rope=rope, time=time, rngs=rngs)),
    )


def moved(network, seed=0):
    """Random parameters, none of them zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: jnp.asarray(0.2 * rng.normal(size=p.shape), jnp.float32), network.shapes
    )


@pytest.mark.parametrize(
    "image,patch,width,head_dim,hidden,factor,norm,blocks,refiner,counts",
    [  # docs/systems/flow_sphere.md#networks
        (32, 2, 256, 32, 512, 32, True, 6, 512, (14_774_612, 6_342_356)),
        (64, 4, 512, 64, 2048, 32, True, 8, 2048, (58_941_012, 40_923_732)),
        (256, 16, 768, 64, 3072, 16, False, 12, 2048, (118_444_628, 107_167_572)),
    ],
)
def test_parameter_counts(
    image, patch, width, head_dim, hidden, factor, norm, blocks, refiner, counts
):
    shape, d = (image, image, 3), width // factor
    shared = (shape, d, patch, width, 6, 8, head_dim, hidden)
    encoder = Network(lambda rngs: Encoder(*shared, normalize=norm, rope="1d", rngs=rngs))
    decoder = Network(lambda rngs: Decoder(*shared, rope="1d", rngs=rngs))
    flow = Network(
        lambda rngs: Refiner(
            shape,
            (d, width),
            patch,
            width,
            blocks,
            8,
            head_dim,
            refiner,
            rope="1d",
            time="table",
            rngs=rngs,
        )  # fmt: skip
    )
    autoencoder = num_parameters(encoder.shapes) + num_parameters(decoder.shapes)
    assert (autoencoder, num_parameters(flow.shapes)) == counts


def test_positions_of_three_streams():
    """Along the sequence: row n turns by n. By rows and columns: one patch in two streams differs
    by a third of a patch, less than from any other patch."""
    along = rope_angles(("1d", (2, 3), 3), 8)
    np.testing.assert_allclose(along[:, 0], np.arange(18))
    by_row = rope_angles(("2d", (2, 3), 3), 8).reshape(3, 2, 3, 4)
    rows, columns = np.meshgrid([0, 1], [0, 1, 2], indexing="ij")
    for stream in range(3):
        np.testing.assert_allclose(by_row[stream, ..., 0], rows + stream / 3)
        np.testing.assert_allclose(by_row[stream, ..., 2], columns + stream / 3)


@pytest.mark.parametrize("rope", [("3d", (2, 2), 1), ("1d", (2, 2), 1), ("2d", (2, 2), 1)])
def test_a_head_that_rope_does_not_fit_is_refused(rope):
    with pytest.raises(ValueError, match="RoPE needs|rope must be"):
        rope_angles(rope, 7)


def test_the_batch_norm_takes_statistics_of_the_batch_or_given_ones():
    encoder, _, _ = networks()
    params = moved(encoder)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(6, *IMAGE)), jnp.float32)
    z = jax.jit(encoder.apply)(params, images)
    scale, bias = params["norm"]["scale"], params["norm"]["bias"]
    standard = (z - bias[None]) / scale[None]
    np.testing.assert_allclose(standard.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(standard.var(0), 1.0, rtol=0.03)  # eps
    before = jax.jit(lambda p, x: encoder.bind(p).before_norm(x))(params, images)
    statistics = {"mean": before.mean(0), "variance": before.var(0)}
    alone = jax.jit(encoder.apply)(params, images[:1], None, statistics)
    np.testing.assert_allclose(alone, z[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rope", ["1d", "2d"])
def test_the_refiner_reads_latents_and_tokens_and_labels(rope):
    _, _, refiner = networks(num_classes=3, rope=rope, time="continuous")
    params, rng, apply = moved(refiner), np.random.default_rng(0), jax.jit(refiner.apply)
    x = jnp.asarray(rng.normal(size=(2, *IMAGE)), jnp.float32)
    t, labels = jnp.array([0.0, 1.0]), jnp.array([0, 3])
    z = jnp.asarray(rng.normal(size=(2, 4, 4, D)), jnp.float32)
    h = jnp.asarray(rng.normal(size=(2, 16, SIZES["width"])), jnp.float32)
    out = apply(params, x, t, z, h, labels)
    assert out.shape == x.shape
    for changed in ((x, t, 2 * z, h, labels), (x, t, z, 2 * h, labels), (x, t, z, h, labels[::-1])):
        assert np.abs(apply(params, *changed) - out).max() > 1e-4
    _, _, alone = networks(context=False)
    assert "latents" not in alone.shapes and "context" not in alone.shapes


@pytest.mark.parity
@pytest.mark.parametrize("normalize", [True, False])
def test_the_networks_equal_the_public_code(normalize):
    torch = pytest.importorskip("torch")
    import originals_flow_sphere as originals

    encoder, decoder, refiner = networks(normalize=normalize)
    rng, heads, patch = np.random.default_rng(3), SIZES["heads"], SIZES["patch"]
    images = rng.normal(size=(5, *IMAGE)).astype(np.float32)
    t = np.array([0.0, 0.3, 0.505, 0.75, 0.999], np.float32)

    def close(ours, theirs):
        ours = np.asarray(ours)
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()

    def first(x):  # channels
        return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())

    p = moved(encoder, 1)
    z = encoder.apply(p, images)
    with torch.no_grad():
        theirs = originals.encode(originals.tensors(p), first(images), patch, heads)
        close(z.reshape(5, -1, D), theirs.numpy())
        q = moved(decoder, 2)
        pixels, tokens = decoder.apply(q, z)
        flat = torch.tensor(np.asarray(z.reshape(5, -1, D)))
        their_pixels, their_tokens = originals.decode(originals.tensors(q), flat, patch, heads, 8)
        close(tokens, their_tokens.numpy())
        close(np.moveaxis(np.asarray(pixels), -1, 1), their_pixels.numpy())
        r = moved(refiner, 3)
        ours = refiner.apply(r, images, jnp.asarray(t), z, tokens)
        theirs = originals.refine(
            originals.tensors(r), first(images), torch.tensor(t), flat,
            torch.tensor(np.asarray(tokens)), patch, heads,
        )  # fmt: skip
        close(np.moveaxis(np.asarray(ours), -1, 1), theirs.numpy())


def test_a_row_for_every_hundredth_however_it_was_computed():
    hundredths = jnp.arange(101, dtype=jnp.float32)
    expected = np.minimum(np.arange(101), 99)
    np.testing.assert_array_equal(time_rows(hundredths / 100.0), expected)
    np.testing.assert_array_equal(time_rows(1.0 - (100.0 - hundredths) / 100.0), expected)
    np.testing.assert_array_equal(time_rows(jnp.array([0.1999, 0.2001])), [19, 20])
