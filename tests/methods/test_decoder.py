"""Decoder finetuning: every term by plain differentiation, and each part sees its own objective."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import OptimizerOptions
from sphere_jax.data.source import Source, Split
from sphere_jax.evaluation.fidelity import Fidelity
from sphere_jax.evaluation.reconstruction import mean_psnr
from sphere_jax.geometry.spaces import make_space
from sphere_jax.losses.adversarial import discriminator_hinge
from sphere_jax.losses.perceptual import Perceptual
from sphere_jax.methods.base import Tools
from sphere_jax.methods.decoder import DecoderFinetuning, DecoderOptions
from sphere_jax.models.discriminator import Discriminator
from sphere_jax.nn.functional import Network
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.sampling import noise_of
from sphere_jax.tokenizers.conv_vae import ConvVAE
from sphere_jax.training.flops import step_flops
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import init_state, make_train_step

D = 4


class Layers(Network):
    """Linear maps over the channels with tanh between them, the last called "head"."""

    def __init__(self, *widths):
        names = ("body", "head")[-len(widths) + 1 :]
        self.sizes = dict(zip(names, itertools.pairwise(widths), strict=True))

    def init(self, key):
        keys = jax.random.split(key, len(self.sizes))
        pairs = zip(keys, self.sizes.items(), strict=True)
        return {
            name: {"kernel": 0.5 * jax.random.normal(k, shape), "bias": jnp.zeros(shape[1:])}
            for k, (name, shape) in pairs
        }

    def apply(self, params, x):
        for name in self.sizes:
            x = x if name == list(self.sizes)[0] else jnp.tanh(x)
            x = x @ params[name]["kernel"] + params[name]["bias"].reshape(1, 1, 1, -1)
        return x


TOKENIZER = ConvVAE(Layers(3, 2 * D), Layers(D, 5, 3), (2, 2, D), (2, 2, 3))
ADVERSARY = Discriminator(Layers(3, 6, 1))
KEYS = jax.random.split(jax.random.key(1), 6)
BOTH = {"schedule": {"adversarial": jnp.float32(1)}}


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)


def map_over(function, params, *arrays):
    return np.asarray(jax.jit(function)(params, *arrays))


TOOLS = Tools(map_over, Fidelity(None, None))
BATCH = {"images": images(6), "labels": np.zeros(6, np.int32)}


@pytest.fixture
def whole():
    """Artifacts of a tokenizer."""
    encoder, decoder = jax.random.split(jax.random.key(0))
    statistics = {"mean": jnp.arange(4.0) / 8, "std": jnp.arange(1.0, 5.0) / 3}
    return {
        "encoder": TOKENIZER.encoder.init(encoder),
        "decoder": TOKENIZER.decoder.init(decoder),
        "statistics": statistics,
    }


def finetuning(path="slerp", adversary=None, **settings):
    space = make_space(path, "token", 0.0, TOKENIZER.latent_shape)
    settings = DecoderOptions(**dict(l1_weight=0.0, l2_weight=1.0) | settings)
    return DecoderFinetuning(TOKENIZER, space, settings, discriminator=adversary)


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_it_sees_projected_latents_and_moves_the_decoder_alone(whole, path):
    method, sgd = finetuning(path), optax.sgd(0.1)
    frozen = method.frozen(whole | {"network": 3})
    assert set(frozen) == {"encoder", "decoder", "statistics"}
    before = jax.tree.map(np.array, frozen)
    state = jax.jit(lambda key: init_state(method, sgd, key, frozen))(jax.random.key(0))
    assert set(state["params"]) == set(method.trains) == {"decoder"} and method.rates == {}

    # docs/systems/spherical_flow.md#pitfalls: normalised, projected, and back through the inverse
    # of the normalisation.
    x = images(6) / 127.5 - 1.0
    latents = np.asarray(TOKENIZER.encode(frozen, jnp.asarray(x, jnp.float32)), np.float64)
    if path == "slerp":
        latents *= 2.0 / np.linalg.norm(latents, axis=-1, keepdims=True)
    z = latents * np.asarray(whole["statistics"]["std"]) + np.asarray(whole["statistics"]["mean"])
    decoded = TOKENIZER.decoder.apply(whole["decoder"], jnp.asarray(z, jnp.float32))
    expected = ((np.asarray(decoded) - x) ** 2).mean()

    step = jax.jit(make_train_step(method, method.options, sgd), donate_argnums=0)
    losses = []
    for _ in range(5):
        state, metrics = step(state, frozen, BATCH)
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[0], expected, rtol=1e-4)
    assert losses[-1] < losses[0]
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, frozen), before)


def gradient(method, params, frozen, batch=BATCH, keys=KEYS):
    pulled = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    (loss, parts), grads = pulled(params, frozen, batch, keys)
    return loss, parts, grads


def test_the_original_decoder_as_target(whole):
    """What it makes of raw latents: where nothing is projected there is nothing to learn."""
    x = to_float(jnp.asarray(images(6)))
    encoded = TOKENIZER.encode(whole, x)
    target = TOKENIZER.decode(whole, encoded)
    for path, latents in (("slerp", None), ("linear", encoded)):
        method = finetuning(path, target="original")
        latents = method.space.project(encoded) if latents is None else latents
        params = {"decoder": jax.tree.map(lambda p: 1.1 * p, whole["decoder"])}
        expected = jnp.mean((TOKENIZER.decode(whole | params, latents) - target) ** 2)
        np.testing.assert_allclose(gradient(method, params, whole)[0], expected, rtol=1e-4)
    loss, _, grads = gradient(method, method.init(jax.random.key(0), whole), whole)
    assert float(loss) < 1e-12 and float(optax.tree.norm(grads["decoder"])) < 1e-6

    opposed = finetuning("slerp", adversary=ADVERSARY, adversarial_weight=0.5, target="original")
    params = opposed.init(jax.random.key(2), whole)
    _, parts, _ = gradient(opposed, params, whole | BOTH)
    real = ADVERSARY.network.apply(params["discriminator"], target)
    np.testing.assert_allclose(parts["logit_real"], np.mean(real), rtol=1e-4)


@pytest.fixture
def adversarial(whole):
    method = finetuning(adversary=ADVERSARY, adversarial_weight=0.5)
    params = method.init(jax.random.key(2), whole)
    assert set(params) == set(method.trains) == {"decoder", "discriminator"}
    return method, params


def test_the_gradients_are_those_of_the_written_objective(whole, adversarial):
    """The decoder's by plain differentiation of its two terms, weighed by the ratio of norms in the
    head's kernel; the discriminator's of the hinge alone.
    """
    method, params = adversarial
    loss, parts, grads = gradient(method, params, whole | BOTH)
    x = to_float(jnp.asarray(images(6)))
    latents = method.space.project(TOKENIZER.encode(whole, x))

    def decode(decoder):
        return TOKENIZER.decode(whole | {"decoder": decoder}, latents)

    def reconstruction(decoder):
        return jnp.mean((decode(decoder) - x) ** 2)

    def deceit(decoder):
        return -jnp.mean(ADVERSARY.network.apply(params["discriminator"], decode(decoder)))

    by_pixel, by_adversary = (
        jax.jit(jax.grad(f))(params["decoder"]) for f in (reconstruction, deceit)
    )
    norms = [np.linalg.norm(g["head"]["kernel"]) for g in (by_pixel, by_adversary)]
    weight = norms[0] / (norms[1] + 1e-4)
    assert 0 < weight < 1e4
    np.testing.assert_allclose(parts["adaptive_weight"], weight, rtol=1e-4)
    expected = jax.tree.map(lambda a, b: a + 0.5 * weight * b, by_pixel, by_adversary)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        grads["decoder"],
        expected,
    )

    def hinge(adversary):
        decoded = decode(params["decoder"])
        return discriminator_hinge(
            *(ADVERSARY.network.apply(adversary, image) for image in (x, decoded))
        )

    value, expected = jax.jit(jax.value_and_grad(hinge))(params["discriminator"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        grads["discriminator"],
        expected,
    )
    total = reconstruction(params["decoder"]) + 0.5 * weight * deceit(params["decoder"]) + value
    np.testing.assert_allclose(loss, total, rtol=1e-4)
    np.testing.assert_allclose(parts["discriminator"], value, rtol=1e-5)


def test_held_out_loss_is_the_reconstruction(whole, adversarial):
    method, params = adversarial
    loss, parts, grads = gradient(method, params, whole)
    plain, _, expected = gradient(finetuning(), {"decoder": params["decoder"]}, whole)
    assert set(parts) == {"pixel"} and loss == plain
    jax.tree.map(np.testing.assert_array_equal, grads["decoder"], expected["decoder"])


def test_warm_up(whole, adversarial):
    """Until it counts, the discriminator learns and the decoder goes as it would without one, also
    where gradients are clipped and weights decay.
    """
    optimizer = OptimizerOptions(
        learning_rate=0.05, b1=0.5, b2=0.9, weight_decay=0.1, clip_norm=0.01
    )
    settings = dict(adversarial_from=2, optimizer=optimizer)
    method = finetuning(adversary=ADVERSARY, adversarial_weight=0.5, **settings)
    adam = make_optimizer(optimizer, 3, method.rates)
    step = jax.jit(make_train_step(method, method.options, adam))
    state = init_state(method, adam, jax.random.key(0), whole)
    plain = finetuning(optimizer=optimizer)
    alone = init_state(plain, adam, jax.random.key(0), whole)
    plain_step = jax.jit(make_train_step(plain, plain.options, adam))
    moved, apart = [], []
    for _ in range(3):
        before = state["params"]["discriminator"]["head"]["kernel"]
        state, _ = step(state, whole, BATCH)
        alone, _ = plain_step(alone, whole, BATCH)
        moved.append(
            float(np.abs(state["params"]["discriminator"]["head"]["kernel"] - before).max())
        )
        kernels = (s["params"]["decoder"]["head"]["kernel"] for s in (state, alone))
        apart.append(float(np.abs(np.subtract(*kernels)).max()))
    assert min(moved) > 1e-3
    assert max(apart[:2]) < 1e-5 < 1e-3 < apart[2]
    assert step._cache_size() == 1  # the step is traced


def test_the_discriminator_has_a_rate_and_a_clipping_norm_of_its_own():
    method = finetuning(adversary=ADVERSARY, adversarial_weight=0.5, discriminator_rate=3.0)
    assert method.rates == {"discriminator": 3.0} and method.clipped_apart == ("discriminator",)
    assert finetuning().clipped_apart == ()


def test_the_work_of_a_step_holds_the_discriminator(whole, adversarial):
    """Multiply-adds of a pixel: the encoder's 24, the decoder's 20 + 15 and back (twice more in the
    last layer, for the adaptive weight), the adversary's 18 + 6.
    """
    method, params = adversarial
    shapes = {"images": ((2, 2, 3), np.uint8), "labels": ((), np.int32)}
    pixels = 6 * 2 * 2
    back = 20 + 2 * 15
    deceit, hinge = 2 * (18 + 6), 2 * (2 * 18 + 3 * 6)
    expected = 24 + 35 + back + 2 * 15 + deceit + hinge
    assert step_flops(method, params, whole, shapes, 6) == 2 * pixels * expected
    assert step_flops(finetuning(), params, whole, shapes, 6) == 2 * pixels * (24 + 35 + back)


class OnBackbone(Discriminator):
    """A network behind a frozen scale in the place of heads on DINO."""

    def logits(self, params, frozen, images):
        return self.network.apply(params, images * frozen["scale"])


def test_dino_discriminator_sees_8_bit_images(whole):
    """docs/systems/hae.md#autoencoder-training: it learns on decoded images of 8 bits; the decoder
    learns from them as they are."""
    adversary = OnBackbone(ADVERSARY.network, backbone=Layers(3, 3))
    method = finetuning(adversary=adversary, adversarial_weight=0.5)
    dino = {"scale": jnp.float32(3.0)}
    frozen = method.frozen(whole | {"dino": dino})
    assert frozen["dino"] is dino
    params = method.init(jax.random.key(2), frozen)
    params["decoder"] = jax.tree.map(lambda p: 2 * p, params["decoder"])  # beyond [-1, 1]
    _, parts, grads = gradient(method, params, frozen | BOTH)
    x = to_float(jnp.asarray(images(6)))
    latents = method.space.project(TOKENIZER.encode(whole, x))
    decoded = TOKENIZER.decode(whole | {"decoder": params["decoder"]}, latents)
    assert np.abs(decoded).max() > 1.5
    seen = to_float(to_uint8(decoded))
    real, raw, seen = (
        adversary.logits(params["discriminator"], dino, y) for y in (x, decoded, seen)
    )
    np.testing.assert_allclose(parts["adversarial"], -np.mean(raw), rtol=1e-4)
    np.testing.assert_allclose(parts["logit_decoded"], np.mean(seen), rtol=1e-4)
    assert abs(np.mean(raw) - np.mean(seen)) > 1e-3
    np.testing.assert_allclose(parts["discriminator"], discriminator_hinge(real, seen), rtol=1e-4)
    for part in ("decoder", "discriminator"):
        assert float(optax.tree.norm(grads[part])) > 1e-4


def test_keys_and_micro_batches(whole, adversarial):
    """Reconstruction and hinge are means over samples; noise belongs to samples."""
    method, params = adversarial
    noisy = dataclasses.replace(
        method, options=dataclasses.replace(method.options, latent_noise=0.7)
    )
    pulled = jax.jit(jax.value_and_grad(noisy.loss, has_aux=True))
    (_, parts), grads = pulled(params, whole | BOTH, BATCH, KEYS)
    rows = [np.array([4, 0, 2]), np.array([1, 5, 3])]
    halves = [pulled(params, whole | BOTH, {"images": images(6)[r]}, KEYS[r]) for r in rows]
    for name in ("pixel", "discriminator", "adversarial"):
        np.testing.assert_allclose(np.mean([h[0][1][name] for h in halves]), parts[name], rtol=1e-5)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(h[1]["discriminator"] for h in halves))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        mean,
        grads["discriminator"],
    )


def test_noise_is_added_on_the_sphere_and_projected(whole):
    method = finetuning(latent_noise=0.7)
    x = to_float(jnp.asarray(images(6)))
    encoded = TOKENIZER.encode(whole, x)
    latents = method._latents(encoded, KEYS)
    np.testing.assert_allclose(np.linalg.norm(latents, axis=-1), 2.0, rtol=1e-5)
    keys = jax.vmap(lambda key: jax.random.split(key))(KEYS)
    sigma = 0.7 * jax.vmap(jax.random.uniform)(keys[:, 0])
    assert np.std(sigma) > 0.05  # every sample has its own
    clean = finetuning()._latents(encoded, KEYS)
    moved = clean + sigma.reshape(-1, 1, 1, 1) * noise_of(keys[:, 1], (2, 2, D))
    np.testing.assert_allclose(latents, method.space.project(moved), rtol=1e-5)


class Distance(Layers):
    """Squared differences in place of LPIPS."""

    def apply(self, params, x, y):
        return jnp.mean(
            (Layers.apply(self, params, x) - Layers.apply(self, params, y)) ** 2, (1, 2, 3)
        )


def test_the_perceptual_term(whole):
    eyes = Perceptual(Distance(3, 3), None)
    method = dataclasses.replace(finetuning(lpips="given", lpips_weight=0.3), perceptual=eyes)
    weights = {"lpips": eyes.lpips.init(jax.random.key(5))}
    frozen = method.frozen(whole | {"perceptual": weights})
    params = method.init(jax.random.key(0), frozen)
    loss, parts = method.loss(params, frozen, BATCH, KEYS)
    x = to_float(jnp.asarray(images(6)))
    decoded = TOKENIZER.decode(whole, method.space.project(TOKENIZER.encode(whole, x)))
    distance = jnp.mean(eyes.lpips.apply(weights["lpips"], decoded, x))
    np.testing.assert_allclose(parts["lpips"], distance, rtol=1e-5)
    np.testing.assert_allclose(loss, parts["pixel"] + 0.3 * distance, rtol=1e-5)


def test_four_cells(whole):
    heldout = Source({"images": images(20, seed=1), "labels": np.zeros(20, np.int32)})
    split = Split(Source({"images": images(40)}), heldout)
    grey = {"decoder": jax.tree.map(lambda p: 0.0 * p, whole["decoder"])}
    outcome = finetuning("slerp").measure(grey, whole, split, TOOLS)
    cells = {f"{z}_{d}" for z in ("raw", "projected") for d in ("original", "finetuned")}
    assert set(outcome.metrics) == {f"psnr_{cell}" for cell in cells}  # SSIM needs 11 pixels
    flat = mean_psnr(np.full((20, 2, 2, 3), 128, np.uint8), split.heldout.arrays["images"])
    for cell in ("raw_finetuned", "projected_finetuned"):
        np.testing.assert_allclose(outcome.metrics[f"psnr_{cell}"], flat, rtol=1e-5)
    x = to_float(jnp.asarray(split.heldout.arrays["images"]))
    raw = TOKENIZER.decode(whole, TOKENIZER.encode(whole, x))
    raw = np.asarray(jnp.round(jnp.clip(raw * 127.5 + 127.5, 0, 255)).astype(jnp.uint8))
    expected = mean_psnr(raw, split.heldout.arrays["images"])
    np.testing.assert_allclose(outcome.metrics["psnr_raw_original"], expected, rtol=1e-5)
    assert outcome.metrics["psnr_projected_original"] != outcome.metrics["psnr_raw_original"]
    assert set(outcome.arrays) == {"original", *cells}
    assert outcome.arrays["original"].shape == (10, 2, 2, 3)

    few = finetuning("slerp", measured=5).measure(grey, whole, split, TOOLS)
    spread = images(20, seed=1)[[0, 4, 9, 14, 19]]
    expected = mean_psnr(np.full((5, 2, 2, 3), 128, np.uint8), spread)
    np.testing.assert_allclose(few.metrics["psnr_raw_finetuned"], expected, rtol=1e-5)

    control = finetuning("linear").measure(grey, whole, split, TOOLS).metrics
    for decoder in ("original", "finetuned"):  # nothing is projected
        assert control[f"psnr_raw_{decoder}"] == control[f"psnr_projected_{decoder}"]


def test_too_few_held_out_images_are_refused_before_training():
    one = Split(Source({"images": images(40)}), Source({"images": images(1), "labels": [0]}))
    with pytest.raises(UserError, match="One held-out image has no spread to measure"):
        finetuning().training_data(one, {}, map_over)
    assert finetuning().files() == {}


def test_notes_name_the_terms_that_count():
    assert finetuning(lpips_weight=2.0).notes() == [
        "Loss: L2 1; target: images.",
        "No LPIPS in it: the stage's option lpips is empty.",
        "No Fréchet distance at the end: config.evaluation.pretrained is empty.",
    ]
    opposed = finetuning(
        adversary=ADVERSARY, l1_weight=0.5, adversarial_weight=0.5, adversarial_from=2000
    )
    loss = "Loss: L1 0.5, L2 1, 'patch' discriminator 0.5 from step 2,000; target: images."
    assert opposed.notes()[0] == loss


def test_a_preview_pairs_originals_with_reconstructions(whole):
    shown = np.asarray(finetuning().preview({"decoder": whole["decoder"]}, whole, BATCH, KEYS[0]))
    assert shown.shape == (12, 2, 2, 3) and shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[:6], images(6))
