"""TAESD, TAEF1, TAEF2: published sizes, stored outputs of the originals, parity with PyTorch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.models.tiny_vae import KINDS, TinyVAE
from sphere_jax.nn.compilation import run_once_options
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.weights.layouts.tiny_vae import layouts
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.tensors import convert, export

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"
COUNTS = {  # of the published files
    "taesd": (1_222_532, 1_222_531),
    "taef1": (1_229_456, 1_229_443),
    "taef2": (1_338_528, 1_338_499),
}


def network(kind, **options):
    return Network(lambda rngs: TinyVAE(*KINDS[kind], rngs=rngs, **options))


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


def random_params(vae):
    """Without a compilation of the initialisers; maps neither die out nor explode."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(vae.init, jax.random.key(0))

    def draw(path, leaf):
        vector = path[-1].key != "kernel"
        centre, scale = (0.5, 0.3) if vector else (0, np.prod(leaf.shape[-4:-1]) ** -0.5)
        return rng.normal(centre, scale, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def quick(function):
    """Compiled in little time, not to little time."""
    return jax.jit(function, compiler_options=run_once_options())


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 1, (2, 24, 40, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_parameter_counts_and_shapes(kind):
    vae, d = network(kind), KINDS[kind].latent_channels
    params = jax.eval_shape(vae.init, jax.random.key(0))
    assert tuple(num_parameters(params[half]) for half in ("encoder", "decoder")) == COUNTS[kind]
    maps = jax.eval_shape(lambda p, x: vae.bind(p).features(x), params, jnp.zeros((2, 64, 48, 3)))
    assert {name: x.shape for name, x in maps.items()} == {
        **{f"encoder/stage{k}": (2, 64 >> k, 48 >> k, 64) for k in range(4)},
        "encoder/latents": (2, 8, 6, d),
        **{f"decoder/stage{k}": (2, 8 << k, 6 << k, 64) for k in range(4)},
        "decoder/images": (2, 64, 48, 3),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_stored_outputs_of_the_original(kind):
    """Real weights on two photographs: 2e-6 at the latents, 8e-6 from pixels to pixels."""
    files = [WEIGHTS / f"{kind}_{part}.safetensors" for part in ("encoder", "decoder")]
    reference = WEIGHTS / f"{kind}_reference.npz"
    if not all(file.is_file() for file in (*files, reference)):
        pytest.skip(f"needs the files {kind}_* in ../shared/data/weights")
    vae = network(kind)
    params = convert(open_tensors(*files), layouts(vae), vae)
    with np.load(reference) as stored:
        pixels, latents, decoded = (
            stored[name] for name in ("images", "latents_nchw", "decoded_nchw")
        )
    maps = quick(lambda p, x: vae.bind(p).features(x))(params, pixels.astype(np.float32) / 255)
    assert relative_error(maps["encoder/latents"], np.moveaxis(latents, 1, -1)) <= 1e-4
    assert relative_error(maps["decoder/images"], np.moveaxis(decoded, 1, -1)) <= 1e-4
    assert decoded.min() < 0  # so a clipped output would be seen


def test_images_do_not_mix_and_every_pixel_counts(images):
    """taef2 is the kind whose norms see a whole image."""
    vae = network("taef2", width=8)
    loss = quick(
        jax.value_and_grad(lambda p, x: jnp.sum(jnp.square(vae.apply(p, x)[0])), argnums=1)
    )
    params = random_params(vae)
    value, gradient = loss(params, images)
    assert np.all(np.abs(gradient[0]).max(axis=-1) > 0) and not np.any(gradient[1])
    np.testing.assert_allclose(loss(params, np.stack([images[0], images[0]]))[0], value, rtol=1e-5)


def test_large_latents_are_clipped():
    vae = network("taesd", width=4)
    params = random_params(vae)
    decode = quick(lambda p, z: vae.bind(p).decoder(z))
    far, farther = (decode(params, np.full((1, 3, 3, 4), value, np.float32)) for value in (60, 90))
    np.testing.assert_array_equal(far, farther)
    assert relative_error(decode(params, np.full((1, 3, 3, 4), 3, np.float32)), far) > 1e-3


def test_bfloat16_products_give_float32_near_the_float32_images(images):
    plain, bfloat16 = (network("taef2", width=16, dtype=d) for d in (jnp.float32, jnp.bfloat16))
    params = random_params(plain)
    expected = np.asarray(quick(plain.apply)(params, images))
    maps = quick(lambda p, x: bfloat16.bind(p).features(x))(params, images)
    assert maps["encoder/latents"].dtype == maps["decoder/images"].dtype == jnp.float32
    assert maps["decoder/stage3"].dtype == maps["encoder/stage3"].dtype == jnp.bfloat16
    assert 1e-5 < relative_error(maps["decoder/images"], expected) < 0.05


@pytest.mark.parametrize(("kind", "names"), [("taesd", 2), ("taef2", 1)])
def test_every_layout_goes_both_ways(kind, names):
    vae = network(kind, width=4)
    params, found = random_params(vae), layouts(vae)
    assert len(found) == names
    for layout in found:
        tensors = export(params, layout)
        assert len(tensors) == {"taesd": 134, "taef2": 158}[kind]  # as in the files
        back = convert(tensors, found, vae)
        jax.tree.map(np.testing.assert_array_equal, back, params)


def torch_halves(latent_channels, group_norm, width=64):
    """The author's networks, rewritten: layers by their published numbers, random weights."""
    torch = pytest.importorskip("torch")
    from torch import nn

    def conv(inputs, outputs, **options):
        return nn.Conv2d(inputs, outputs, 3, padding=1, **options)

    class Squash(nn.Module):
        def forward(self, x):
            return torch.tanh(x / 3) * 3

    class Block(nn.Module):
        def __init__(self, norm=False):
            super().__init__()
            layers = [conv(width, width) for _ in range(3)]
            self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
            self.pool = None
            if norm:
                self.pool = nn.Sequential(
                    nn.Conv2d(width, 4 * width, 1, bias=False),
                    nn.GroupNorm(4, 4 * width),
                    nn.ReLU(),
                    nn.Conv2d(4 * width, width, 1, bias=False),
                )
                for vector in (self.pool[1].weight, self.pool[1].bias):
                    nn.init.uniform_(vector, 0.5, 1.5)

        def forward(self, x):
            x = x if self.pool is None else x + self.pool(x)
            return torch.relu(x + self.conv(x))

    encoder = [conv(3, width), Block()]
    for norm in (False, False, group_norm):
        encoder += [conv(width, width, stride=2, bias=False), *[Block(norm) for _ in range(3)]]
    decoder = [Squash(), conv(latent_channels, width), nn.ReLU()]
    for norm in (group_norm, False, False):
        blocks = [Block(norm) for _ in range(3)]
        decoder += [*blocks, nn.Upsample(scale_factor=2), conv(width, width, bias=False)]
    encoder = nn.Sequential(*encoder, conv(width, latent_channels)).eval()
    return encoder, nn.Sequential(*decoder, Block(), conv(width, 3)).eval()


def torch_maps(half, sequence, x):
    """The outputs of a half that our `features` names."""
    ends = {"encoder": (1, 5, 9, 13), "decoder": (5, 10, 15, 18)}[half]
    names = {layer: f"{half}/stage{k}" for k, layer in enumerate(ends)}
    names[len(sequence) - 1] = f"{half}/{'latents' if half == 'encoder' else 'images'}"
    maps = {}
    for number, layer in enumerate(sequence):
        x = layer(x)
        if number in names:
            maps[names[number]] = x
    return maps


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
def test_parity_with_pytorch(kind):
    """Random weights, full width and depth, sides that are no multiples of 8: 2e-6."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    torch.manual_seed(0)
    halves = dict(zip(("encoder", "decoder"), torch_halves(*KINDS[kind]), strict=True))
    tensors = {
        f"{half}.{name}": tensor
        for half, sequence in halves.items()
        for name, tensor in originals.published(sequence).items()
    }
    vae = network(kind)
    params = convert(tensors, layouts(vae), vae)
    images = np.random.default_rng(1).uniform(0, 1, (2, 37, 44, 3)).astype(np.float32)

    x = originals.nchw(images).requires_grad_()
    expected = torch_maps("encoder", halves["encoder"], x)
    expected |= torch_maps("decoder", halves["decoder"], expected["encoder/latents"])
    maps = jax.jit(lambda p, x: vae.bind(p).features(x))(params, images)
    assert maps.keys() == expected.keys()
    errors = {k: relative_error(maps[k], originals.nhwc(expected[k])) for k in maps}
    assert max(errors.values()) <= 1e-4, errors

    expected["decoder/images"].square().sum().backward()
    slope = jax.jit(jax.grad(lambda p, x: jnp.sum(jnp.square(vae.apply(p, x))), argnums=1))
    assert relative_error(slope(params, images), originals.nhwc(x.grad)) <= 1e-4


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["taesd", "taef1"])
def test_parity_with_diffusers(kind):
    """AutoencoderTiny takes and gives [-1, 1]; its own `forward` would round the latents."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals
    from torchvision_shim import importorskip

    diffusers = importorskip("diffusers")  # imports torchvision where that is installed

    torch.manual_seed(0)
    model = diffusers.AutoencoderTiny(latent_channels=KINDS[kind].latent_channels).eval()
    vae = network(kind)
    params = convert(originals.published(model), layouts(vae), vae)
    images = np.random.default_rng(1).uniform(0, 1, (2, 32, 40, 3)).astype(np.float32)
    with torch.no_grad():
        latents = model.encode(originals.nchw(2 * images - 1)).latents
        decoded = (model.decode(latents).sample + 1) / 2
    maps = jax.jit(lambda p, x: vae.bind(p).features(x))(params, images)
    errors = [
        relative_error(maps[name], originals.nhwc(expected))
        for name, expected in (("encoder/latents", latents), ("decoder/images", decoded))
    ]
    assert max(errors) <= 1e-4
