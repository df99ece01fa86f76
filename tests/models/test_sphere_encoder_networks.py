"""The networks of Sphere Encoder: published counts, pixel heads, and how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.sphere_encoder import SIZES, ConvPixels, Decoder, Encoder, LinearPixels
from sphere_jax.nn.functional import Network, num_parameters

SMALL = dict(patch=2, width=16, depth=2, heads=2)
IMAGE, D, CLASSES = (8, 8, 3), 4, 5


def networks(num_classes=CLASSES, pixel_head="linear", **options):
    shared = (IMAGE, D, *SMALL.values(), num_classes)
    return (
        Network(lambda rngs: Encoder(*shared, mixer_depth=2, rngs=rngs, **options)),
        Network(
            lambda rngs: Decoder(
                *shared, mixer_depth=2, pixel_head=pixel_head, rngs=rngs, **options
            )
        ),
    )


def moved(params, seed=0):
    """Off the zero start."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params)


@pytest.mark.parametrize(
    ("image", "d", "patch", "size", "classes", "mixer", "head", "count"),
    [  # docs/systems/shared.md#parameter-counts
        (32, 8, 2, "base", 10, 2, "conv", (129_827_684, 133_990_471)),
        (256, 64, 8, "base", 1000, 4, "linear", 287_914_916),
        (256, 64, 8, "large", 1000, 4, "linear", 950_354_532),
        (256, 64, 8, "xlarge", 1000, 4, "linear", 1_388_922_404),
        (256, 128, 8, "large", 0, 4, "linear", 642_148_324),
        (256, 128, 8, "large", 102, 4, "linear", 948_844_516),
    ],
)
def test_published_parameter_counts(image, d, patch, size, classes, mixer, head, count):
    depth, width, heads = SIZES[size]
    shared = ((image, image, 3), d, patch, width, depth, heads, classes)
    counts = []
    for build, options in ((Encoder, {}), (Decoder, {"pixel_head": head})):
        network = Network(
            lambda rngs, build=build, options=options: build(
                *shared, mixer_depth=mixer, rngs=rngs, **options
            )
        )
        params = jax.eval_shape(network.init, jax.random.key(0))
        counts.append(num_parameters(params) + network.module.fixed_table_size)
    assert (tuple(counts) if isinstance(count, tuple) else sum(counts)) == count


@pytest.mark.parametrize(
    ("head", "part", "std"),
    [("linear", "conv", 0.01 * (2 / 30) ** 0.5), ("conv", "conv", 7.9e-4), ("conv", "up", 1.58e-3)],
)
def test_pixel_heads_start_as_released(head, part, std):
    """Xavier on `(first axis of PyTorch's kernel, everything else)`: fans of 3 + 27, 32 + 288 and
    32 + 48, where those of convolutions are 27 + 27, 288 + 288 and 512 + 48."""
    kinds = {"linear": LinearPixels, "conv": ConvPixels}
    network = Network(lambda rngs: kinds[head]((4, 4), 2, 3, dtype=jnp.float32, rngs=rngs))
    keys = jax.random.split(jax.random.key(0), 64)
    kernels = jax.jit(jax.vmap(network.init))(keys)[part]["kernel"]
    assert np.std(kernels) == pytest.approx(std, rel=0.02)
    assert np.abs(kernels).max() == pytest.approx(std * 3**0.5, rel=0.02)  # uniform


@pytest.mark.parametrize("head", ["linear", "conv"])
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_shapes_and_ranges(head, classes):
    encoder, decoder = networks(classes, head)
    labels = jnp.array([0, 1, 2]) if classes else None
    images = jax.random.uniform(jax.random.key(0), (3, *IMAGE), minval=-1.0)
    params = jax.jit(encoder.init)(jax.random.key(1))
    z = jax.jit(encoder.apply)(params, images, labels)
    assert z.shape == (3, 4, 4, D) and z.dtype == jnp.float32
    assert not np.any(z)  # the latent of a fresh encoder is 0
    latents = jax.random.normal(jax.random.key(2), (3, 4, 4, D))
    out = jax.jit(decoder.apply)(moved(jax.jit(decoder.init)(jax.random.key(3))), latents, labels)
    assert out.shape == (3, *IMAGE) and out.dtype == jnp.float32
    assert 1e-3 < np.abs(out).max() < 1.0


def test_labels_modulate_and_mixtures_lie_between():
    encoder, _ = networks()
    params = moved(jax.jit(encoder.init)(jax.random.key(0)))
    images = jnp.broadcast_to(
        jax.random.uniform(jax.random.key(1), (1, *IMAGE), minval=-1.0), (3, *IMAGE)
    )
    one, other, third = jax.jit(encoder.apply)(params, images, jnp.array([0, 1, 1]))
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(other, third, rtol=1e-6)
    hot = jax.nn.one_hot(jnp.array([0, 1, 1]), CLASSES + 1)
    np.testing.assert_allclose(
        jax.jit(encoder.apply)(params, images, hot)[0], one, rtol=1e-4, atol=1e-5
    )
    half = 0.5 * (hot[0] + hot[1])
    between = jax.jit(encoder.apply)(params, images, jnp.stack([half] * 3))[0]
    assert np.abs(between - one).max() > 1e-4 and np.abs(between - other).max() > 1e-4


def test_every_token_sees_every_other():
    encoder, decoder = networks()
    params = moved(jax.jit(encoder.init)(jax.random.key(0)))
    changed = jnp.zeros((1, *IMAGE)).at[0, 0, 0, 0].set(1.0)
    labels = jnp.array([0])
    encode = jax.jit(encoder.apply)
    difference = encode(params, changed, labels) - encode(params, 0 * changed, labels)
    assert np.abs(difference).reshape(16, D).max(1).min() > 0


def test_bfloat16_networks_return_float32():
    encoder, decoder = networks(compute_dtype=jnp.bfloat16)
    full, _ = networks()
    params = moved(jax.jit(encoder.init)(jax.random.key(0)))
    images, labels = jnp.full((1, *IMAGE), 0.5), jnp.array([1])
    rough, exact = (n.apply(params, images, labels) for n in (encoder, full))
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())
    out = jax.jit(decoder.apply)(jax.jit(decoder.init)(jax.random.key(1)), exact, labels)
    assert out.dtype == jnp.float32


@pytest.mark.parity
@pytest.mark.parametrize("patch", [2, 4])
def test_the_transposed_convolution_is_pytorchs(patch):
    torch = pytest.importorskip("torch")
    head = Network(lambda rngs: ConvPixels((3, 3), patch, 3, dtype=jnp.float32, rngs=rngs))
    params = moved(head.init(jax.random.key(0)))
    tokens = np.random.default_rng(0).normal(size=(2, 9, 32)).astype(np.float32)
    ours = head.apply(params, tokens)

    x = torch.from_numpy(tokens.reshape(2, 3, 3, 32)).permute(0, 3, 1, 2)
    as_torch = {k: np.array(v) for k, v in params["conv"].items()}
    kernel = torch.from_numpy(as_torch["kernel"].transpose(3, 2, 0, 1).copy())
    x = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    x = torch.nn.functional.conv2d(x, kernel, torch.from_numpy(as_torch["bias"]))
    up = {k: np.array(v) for k, v in params["up"].items()}
    # A transposed convolution in PyTorch is the gradient of one, so its kernel is turned around.
    kernel = torch.from_numpy(up["kernel"][::-1, ::-1].transpose(2, 3, 0, 1).copy())
    x = torch.nn.functional.conv_transpose2d(
        torch.nn.functional.silu(x), kernel, torch.from_numpy(up["bias"]), stride=patch, padding=1
    )
    theirs = x.permute(0, 2, 3, 1).numpy()
    assert theirs.shape == (2, 3 * patch, 3 * patch, 3)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="patch 3 does not divide"):
        Network(lambda rngs: Encoder(IMAGE, D, 3, 16, 1, 2, 0, rngs=rngs))
    with pytest.raises(ValueError, match="pixel head"):
        Network(lambda rngs: Decoder(IMAGE, D, 2, 16, 1, 2, 0, pixel_head="mlp", rngs=rngs))
