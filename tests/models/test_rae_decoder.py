"""Decoder of RAE: published sizes, shapes, layouts, parity with PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.rae_decoder import SIZES, RAEDecoder
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.rae import layouts
from sphere_jax.weights.tensors import convert, export

TINY = ((3, 3), 12, 2, 32, 4, 48)  # grid, channels, depth, width, heads, hidden


def network(*sizes, **options):
    return Network(lambda rngs: RAEDecoder(*sizes, rngs=rngs, **options))


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


def quick(function):
    return jax.jit(function, compiler_options=run_once_options())


@pytest.fixture(scope="module")
def params():
    """Random on every leaf."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network(*TINY).init, jax.random.key(0))
    return jax.tree.map(lambda s: rng.normal(0.1, 0.3, s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def latents():
    return np.random.default_rng(1).standard_normal((2, 3, 3, 12)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "count"), [("base", 86_237_952), ("large", 303_887_104), ("xlarge", 415_056_640)]
)
def test_parameter_counts(size, count):
    """Of the PyTorch original without its table of positions; 415 M in the paper."""
    params = jax.eval_shape(network((16, 16), 768, *SIZES[size]).init, jax.random.key(0))
    assert num_parameters(params) == count


def test_shapes_of_the_published_decoder():
    decoder = network((16, 16), 768, *SIZES["xlarge"])
    params = jax.eval_shape(decoder.init, jax.random.key(0))
    images = jax.eval_shape(decoder.apply, params, jnp.zeros((2, 16, 16, 768)))
    assert images.shape == (2, 256, 256, 3) and images.dtype == jnp.float32


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="not divisible by heads 5"):
        network((3, 3), 12, 2, 32, 5, 48)
    with pytest.raises(ValueError, match="divisible by 4, got 30"):
        network((3, 3), 12, 2, 30, 3, 48)


def test_features_are_those_of_the_output(params, latents):
    decoder = network(*TINY)
    found = quick(lambda p, z: decoder.bind(p).features(z))(params, latents)
    assert set(found) == {"embed", "block_0", "block_1", "norm"}
    assert {f.shape for f in found.values()} == {(2, 10, 32)}
    images = quick(decoder.apply)(params, latents)
    last = quick(lambda p, x: decoder.bind(p).pixels(x))(params, found["norm"])
    np.testing.assert_allclose(images, last, atol=1e-5 * np.abs(images).max())


def test_a_token_becomes_the_patch_in_its_place(params, latents):
    """Rows, columns and channels of a patch in that order, patches in raster order."""
    decoder = network(*TINY)
    tokens = np.zeros((1, 10, 32), np.float32)
    tokens[0, 1 + 3 * 1 + 2] = 1.0  # row 1, column 2
    image = np.asarray(decoder.bind(params).pixels(tokens))[0]
    kernel, bias = (np.asarray(params["output"][name]) for name in ("kernel", "bias"))
    patch = (kernel.sum(axis=0) + bias).reshape(16, 16, 3)
    np.testing.assert_allclose(image[16:32, 32:48], patch, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(image[:16, :16], bias.reshape(16, 16, 3), rtol=1e-5)


def test_bfloat16_products_give_float32_near_the_float32_images(params, latents):
    expected = np.asarray(quick(network(*TINY).apply)(params, latents))
    result = quick(network(*TINY, dtype=jnp.bfloat16).apply)(params, latents)
    assert result.dtype == jnp.float32
    assert 1e-5 < relative_error(result, expected) < 0.05


def test_every_parameter_learns_from_the_first_step(latents):
    """The CLS token too, on which the first norm acts, whose EPS is 1e-12."""
    decoder = network(*TINY, remat="blocks")

    def slope(key):
        params = decoder.init(key)
        return jax.grad(lambda p: jnp.mean(decoder.apply(p, latents) ** 2))(params)

    largest = jax.tree.map(lambda g: float(jnp.abs(g).max()), quick(slope)(jax.random.key(0)))
    assert 1e-6 < largest["cls"] < 1.0
    assert all(0 < value < 100 for value in jax.tree.leaves(largest))


@pytest.mark.parametrize("layout", [0, 1, 2], ids=["authors", "whole", "diffusers"])
def test_every_layout_leads_back(layout, params):
    decoder = network(*TINY)
    published = export(params, layouts(decoder)[layout])
    assert f"{'decoder.' if layout else ''}decoder_pos_embed" in published
    if layout:  # beside the encoder and the statistics
        published |= {"encoder.embeddings.cls_token": np.zeros(3), "_latents_mean": np.zeros(1)}
    found = convert(published, layouts(decoder), decoder)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_other_positions_are_refused(params):
    decoder = network(*TINY)
    published = export(params, layouts(decoder)[0])
    published["decoder_pos_embed"] = published["decoder_pos_embed"] + 0.01
    with pytest.raises(ValueError, match="other values than they are computed here"):
        convert(published, layouts(decoder), decoder)


def check_parity(grid, depth, width, heads, hidden, sides):
    """Returns the largest relative errors of features and of images, for latents of these sides."""
    torch = pytest.importorskip("torch")
    import originals_rae
    import torch_originals as originals

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = originals_rae.TorchRAEDecoder(grid, 768, depth, width, heads, hidden)
    rng = np.random.default_rng(0)
    latents = [rng.standard_normal((1, n, n, 768)).astype(np.float32) for n in sides]
    tokens = [torch.from_numpy(z).flatten(1, 2) for z in latents]
    expected = [(model.features(x), originals.nhwc(model(x))) for x in tokens]
    decoder = network((grid, grid), 768, depth, width, heads, hidden)
    params = convert(originals.published(model), layouts(decoder), decoder)
    del model  # memory
    params = jax.device_put(params)
    errors = []
    for z, (features, images) in zip(latents, expected, strict=True):
        found = jax.jit(lambda p, z: decoder.bind(p).features(z))(params, z)
        assert set(found) == set(features)
        errors.append(max(relative_error(found[n], features[n].numpy()) for n in found))
        errors.append(relative_error(jax.jit(decoder.apply)(params, z), images))
    return errors


@pytest.mark.parity
def test_parity_with_pytorch():
    """Real width, depth 2. Measured: features 6e-7, images 1e-6, latents of another grid too."""
    errors = check_parity(16, 2, *SIZES["xlarge"][1:], sides=(16, 11))
    assert max(errors) <= 1e-4


@pytest.mark.parity
@pytest.mark.slow
def test_parity_with_pytorch_at_full_depth():
    """All 28 blocks on a grid of 4 x 4. Measured: features 8e-7, images 1e-6."""
    errors = check_parity(4, *SIZES["xlarge"], sides=(4,))
    assert max(errors) <= 1e-4


@pytest.mark.parity
def test_parity_with_diffusers():
    """Its `RAEDecoder`, from its own names. Measured: 4e-7.

    On its default grid only: on others diffusers stretches the positions to 16, the authors do not.
    """
    torch = pytest.importorskip("torch")
    import torch_originals as originals
    import torchvision_shim

    rae = torchvision_shim.importorskip("diffusers.models.autoencoders.autoencoder_rae")
    torch.manual_seed(0)
    depth, width, heads, hidden = 2, 96, 4, 200
    model = rae.RAEDecoder(24, width, depth, heads, hidden).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.02, 0.2)
    decoder = network((16, 16), 24, depth, width, heads, hidden)
    published = {f"decoder.{name}": x for name, x in originals.published(model).items()}
    published["decoder.decoder_pos_embed"] = model.decoder_pos_embed.numpy()  # older files have it
    params = convert(published, layouts(decoder), decoder)
    z = np.random.default_rng(0).standard_normal((1, 16, 16, 24)).astype(np.float32)
    with torch.no_grad():
        expected = model.unpatchify(model(torch.from_numpy(z).flatten(1, 2)).logits)
    error = relative_error(jax.jit(decoder.apply)(params, z), originals.nhwc(expected))
    assert error <= 1e-4
