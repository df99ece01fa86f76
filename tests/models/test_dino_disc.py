"""The released discriminators: counts, groups of samples, power iteration, parity with PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax.losses.augmentation import augment, augmented
from sphere_jax.models import discriminator as module
from sphere_jax.models.dino import DINO
from sphere_jax.models.dino_disc import Heads, PowerConv, advance, released_dino_discriminator
from sphere_jax.models.discriminator import Discriminator, patch_discriminator
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.nn.local_norm import LocalBatchNorm
from sphere_jax.weights.layouts import dino as dino_layouts
from sphere_jax.weights.tensors import convert

WIDTH, GRID = 32, 4


@pytest.fixture
def small(monkeypatch):
    """Its form on a DINO of width 32 at 32 pixels, by the size of a group."""
    monkeypatch.setattr(module, "DINO_SIDE", 8 * GRID)
    sizes = dict(patch=8, grid=GRID, layer_scale=False, exact_gelu=False)
    dino = Network(lambda rngs: DINO(WIDTH, 12, 2, **sizes, rngs=rngs))

    def build(group):
        heads = Network(lambda rngs: Heads(WIDTH, 5, group, rngs=rngs))
        return Discriminator(heads, dino, advance)

    return build


def test_its_published_size():
    discriminator = released_dino_discriminator()
    shapes = discriminator.network.shapes
    convs = 384 * 384 * 10 + 384 + 3 * 384  # and biases
    vectors = (384 + 384) + (384 + 9 * 384) + (1 + 384)  # torch keeps them as buffers
    assert num_parameters(shapes) == 5 * (convs + 1 + 4 * 384 - 384 + vectors)
    assert num_parameters(discriminator.backbone.shapes) == 21_670_272


def test_a_power_iteration_a_step_finds_the_spectral_norm():
    conv = Network(lambda rngs: PowerConv((9, 8, 6), rngs=rngs))
    params = conv.init(jax.random.key(0))
    matrix = np.asarray(params["kernel"]).transpose(2, 1, 0).reshape(6, -1)
    for _ in range(60):
        params = advance({"nested": params})["nested"]
    found = params["left"] @ matrix @ params["right"]
    np.testing.assert_allclose(found, np.linalg.norm(matrix, 2), rtol=1e-4)
    x = jax.random.normal(jax.random.key(1), (2, 12, 8))
    slopes = jax.grad(lambda p: jnp.sum(conv.apply(p, x) ** 2))(params)
    assert not slopes["left"].any() and not slopes["right"].any() and slopes["kernel"].any()
    turned = conv.apply(params, jnp.roll(x, 5, axis=1))
    np.testing.assert_allclose(turned, jnp.roll(conv.apply(params, x), 5, axis=1), atol=1e-5)


def test_groups_of_micro_batches_are_those_of_the_batch():
    norm = Network(lambda rngs: LocalBatchNorm(3, group=2))
    params, x = norm.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (8, 5, 3))
    whole = norm.apply(params, x)
    for first in range(2):  # strided, as in training/step.py
        np.testing.assert_allclose(norm.apply(params, x[first::2]), whole[first::2], atol=1e-6)
    alone = Network(lambda rngs: LocalBatchNorm(3, group=1)).apply(params, x)
    np.testing.assert_allclose(alone.mean(1), 0, atol=1e-6)
    assert np.abs(whole.mean(1)).max() > 0.05
    with pytest.raises(ValueError, match="batch of 3 has no groups of 2"):
        norm.apply(params, x[:3])


def test_what_the_augmentation_does():
    images = jax.random.uniform(jax.random.key(0), (3, 16, 16, 3), minval=-1)
    still = jnp.full((3, 5), 0.5)
    np.testing.assert_allclose(augmented(images, still), images, atol=1e-6)
    moved = augmented(images, still.at[:, 0].set(0.99))  # two rows of 16
    np.testing.assert_allclose(moved[:, :-2], images[:, 2:], atol=1e-6)
    keys = jax.random.split(jax.random.key(1), 3)
    found = augment(images, keys)
    np.testing.assert_array_equal(augment(images[1:], keys[1:]), found[1:])
    assert not np.allclose(found, images, atol=0.1)


def relative_error(result, expected):
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()


def nhwc(tensor):
    return tensor.detach().movedim(1, -1).numpy()


def head_params(head):
    """Ours from a TorchHead, its kernels before the spectral norm."""
    found = {}
    for name in ("first", "second", "last"):
        conv = getattr(head, name)
        found[name] = {
            "kernel": conv.weight_orig.detach().permute(2, 1, 0).numpy(),
            "bias": conv.bias.detach().numpy(),
            "left": conv.weight_u.numpy().copy(),
            "right": conv.weight_v.numpy().copy(),
        }
    norms = [{"scale": n.weight.detach().numpy(), "bias": n.bias.detach().numpy()}
             for n in head.norms]  # fmt: skip
    return found | {"norms": dict(enumerate(norms))}


@pytest.mark.parity
@pytest.mark.parametrize("group", [1, 2])
def test_parity_of_the_dino_discriminator(small, group):
    """Logits in training and gradients of the images. Measured: 9e-7 and 2e-6."""
    torch = pytest.importorskip("torch")
    from originals_disc import TorchDinoDisc

    torch.manual_seed(0)
    original = TorchDinoDisc(WIDTH, 2, GRID, group).train()
    for head in original.heads:
        for norm in head.norms:
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    ours = small(group)
    state = {n: t.numpy() for n, t in original.dino.state_dict().items()}
    frozen = convert(state, dino_layouts.layouts(ours.backbone), ours.backbone)
    params = {"heads": {k: head_params(head) for k, head in enumerate(original.heads)}}
    params = ours.advance(params)  # as the forward pass below does in training

    images = torch.rand(4, 3, 48, 48) * 2 - 1
    images.requires_grad_(True)
    expected = original(images)
    expected.square().sum().backward()
    # Groups are of neighbours there, and strided here.
    order = np.arange(4).reshape(-1, group).T.ravel()
    x = jnp.asarray(nhwc(images)[order])
    found = jax.jit(ours.logits)(params, frozen, x)
    assert relative_error(found, expected.detach().numpy()[order]) < 1e-4
    slope = jax.jit(jax.grad(lambda x: jnp.sum(ours.logits(params, frozen, x) ** 2)))(x)
    assert relative_error(slope, nhwc(images.grad)[order]) < 1e-3
    for k, head in enumerate(original.heads):  # the vectors that PyTorch's iteration left
        left = params["heads"][k]["second"]["left"]
        np.testing.assert_allclose(left, head.second.weight_u.numpy(), atol=1e-5)


@pytest.mark.parity
def test_parity_of_patchgan_with_batch_norm():
    """In training, over the whole batch. Measured: 6e-7."""
    torch = pytest.importorskip("torch")
    from originals_disc import TorchPatch

    torch.manual_seed(0)
    original = TorchPatch(8).train()
    ours = patch_discriminator(3, width=8, group=4)
    convs = [m for m in original if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in original if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)

    def conv(m):
        found = {"kernel": m.weight.detach().permute(2, 3, 1, 0).numpy()}
        return found if m.bias is None else found | {"bias": m.bias.detach().numpy()}

    params = {
        "stem": conv(convs[0]),
        "head": conv(convs[-1]),
        "convs": {k: conv(m) for k, m in enumerate(convs[1:-1])},
        "norms": {k: {"scale": m.weight.detach().numpy(), "bias": m.bias.detach().numpy()}
                  for k, m in enumerate(norms)},
    }  # fmt: skip
    images = torch.rand(4, 3, 48, 48) * 2 - 1
    expected = original(images)[:, 0].detach().numpy()
    assert relative_error(ours.logits(params, None, nhwc(images)), expected) < 1e-4


def test_patchgan_with_batch_norm_at_its_published_size():
    assert num_parameters(patch_discriminator(3, group=8).network.shapes) == 2_765_633


@pytest.mark.parity
def test_parity_of_the_augmentation():
    """Measured: 3e-7."""
    torch = pytest.importorskip("torch")
    from originals_disc import augmented as original

    torch.manual_seed(0)
    images, draws = torch.rand(3, 3, 24, 16) * 2 - 1, torch.rand(3, 5)
    found = augmented(nhwc(images), draws.numpy())
    assert relative_error(found, nhwc(original(images, draws))) < 1e-5
