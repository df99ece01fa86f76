"""HAE's stages: what learns, the written objective, both players, schedules, the classifier."""

import dataclasses
import math

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from refusals import refusal_of

from sphere_jax.config.options import DataOptions, EvaluationOptions
from sphere_jax.config.reading import read_config
from sphere_jax.losses.perceptual import Perceptual
from sphere_jax.methods.autoencoding_options import AutoencodingOptions
from sphere_jax.methods.decoder_training import make_discriminator
from sphere_jax.methods.hae import HAEOptions, HAETraining
from sphere_jax.methods.vit_classifier import ViTClassifier, ViTClassifierOptions
from sphere_jax.models import discriminator as discriminators
from sphere_jax.models.dino import DINO
from sphere_jax.models.dino_disc import Heads, advance
from sphere_jax.models.discriminator import Discriminator
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.pixels import to_float
from sphere_jax.tokenizers.hae import HAE
from sphere_jax.tokenizers.hae import HAEOptions as Sizes
from sphere_jax.training.optimizers import make_optimizer
from sphere_jax.training.step import init_state, make_train_step

SIZES = dict(
    vit="",
    vit_width=16,
    vit_depth=1,
    vit_heads=2,
    patch=4,
    stem_widths=(8,),
    decoder_widths=(8, 16, 32),
    decoder_depths=(1, 1, 1),
    attention_levels=1,
)
SECOND = dict(
    encoder="frozen",
    align="none",
    steps=8,
    batch_size=4,
    latent_noise=0.8,
    latent_noise_end=1.2,
    latent_noise_ramp=4,
    noise_per="batch",
    adversarial_weight=0.5,
    discriminator_from=2,
    adversarial_from=4,
)
BOTH = dict(discriminator_from=0, adversarial_from=0)
WIDTH, GRID = 16, 4


def tokenizer(**more):
    return HAE.build(DataOptions(image_size=32, channels=3), Sizes(**SIZES | more))


def method(discriminator=None, of=None, **options):
    of = of or tokenizer()
    return HAETraining(
        "s", of, HAEOptions(**options), Perceptual(None, None), discriminator, EvaluationOptions()
    )


@pytest.fixture(scope="module")
def trained():
    """{"stem", "vit", "decoder"} and a batch of four images."""
    of, keys = tokenizer(), jax.random.split(jax.random.key(0), 3)
    parts = {n: jax.jit(getattr(of, n).init)(k) for n, k in zip(of.parts, keys, strict=True)}
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    return parts, {"images": images, "labels": np.arange(4, dtype=np.int32)}


@pytest.fixture(scope="module")
def on_dino():
    """The released discriminator on a small DINO, with two samples a group of its norms."""
    before, discriminators.DINO_SIDE = discriminators.DINO_SIDE, 8 * GRID
    sizes = dict(patch=8, grid=GRID, layer_scale=False, exact_gelu=False)
    dino = Network(lambda rngs: DINO(WIDTH, 12, 2, **sizes, rngs=rngs))
    heads = Network(lambda rngs: Heads(WIDTH, 5, 2, rngs=rngs))
    yield Discriminator(heads, dino, advance), jax.jit(dino.init)(jax.random.key(7))
    discriminators.DINO_SIDE = before


@pytest.mark.parametrize("align", ["cosine", "mse", "none"])
def test_the_first_stage_is_the_written_objective(trained, align):
    parts, batch = trained
    first = method(align=align)
    assert first.trains == ("stem", "decoder") and not first.schedule(jnp.int32(0))
    frozen = first.frozen(parts)
    params = {name: parts[name] for name in first.trains}
    keys = first.keys(jax.random.key(1), 4)
    (loss, found), slopes = jax.jit(jax.value_and_grad(first.loss, has_aux=True))(
        params, frozen, batch, keys
    )
    assert slopes.keys() == params.keys()
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes["stem"]))

    x, of = to_float(batch["images"]), first.tokenizer
    z = np.float64(of.encode(parts, x))
    t = np.float64(of.as_latents(of.teacher(parts, x)))
    np.testing.assert_allclose(of.decode(parts, z.astype("f4")).shape, (4, 32, 32, 3))
    pixel = np.abs(of.decode(parts, z.astype("f4")) - x).mean()
    cosine = (z * t).sum(-1) / np.linalg.norm(z, axis=-1) / np.linalg.norm(t, axis=-1)
    term = {"cosine": 1 - cosine.mean(), "mse": ((z - t) ** 2).mean(), "none": 0.0}[align]
    np.testing.assert_allclose(loss, pixel + 0.5 * term, rtol=1e-4)
    assert ("align" in found) == (align != "none")


def test_a_patch_stem_begins_as_the_teacher(trained):
    parts, batch = trained
    first = method(of=tokenizer(stem="patch"))
    params = first.init(jax.random.key(0), first.frozen({"vit": parts["vit"]}))
    _, found = first.loss(params, parts, batch, first.keys(jax.random.key(1), 4))
    np.testing.assert_allclose(found["align"], 0, atol=1e-5)


def test_parts_of_earlier_stages_are_taken_over(trained):
    parts, _ = trained
    small = make_discriminator("patch", 3, width=4)
    second = method(small, **SECOND)
    fresh = small.network.init(jax.random.key(9))
    params = second.init(jax.random.key(0), second.frozen(parts | {"discriminator": fresh}))
    for name, tree in (("decoder", parts["decoder"]), ("discriminator", fresh)):
        jax.tree.map(np.testing.assert_array_equal, params[name], tree)
    other = {"kernel": jnp.zeros(3)}  # of a stage with another discriminator
    params = second.init(jax.random.key(0), second.frozen(parts | {"discriminator": other}))
    assert jax.tree.structure(params["discriminator"]) == jax.tree.structure(fresh)


def test_schedule_and_noise():
    second = method(make_discriminator("patch", 3), **SECOND)
    rows = [{k: float(v) for k, v in second.schedule(jnp.int32(n)).items()} for n in range(6)]
    np.testing.assert_allclose([row["tau"] for row in rows], [0.8, 0.9, 1.0, 1.1, 1.2, 1.2])
    assert [row["discriminator"] for row in rows] == [0, 0, 1, 1, 1, 1]
    assert [row["adversarial"] for row in rows] == [0, 0, 0, 0, 1, 1]
    assert second.starts == {"discriminator": 2}
    strength = second.keys(jax.random.key(0), 64)["strength"]
    assert len(np.unique(strength)) == 1 and 0 < strength[0] < 1
    a_sample = method(**SECOND | {"noise_per": "sample"}).keys(jax.random.key(0), 64)["strength"]
    assert len(np.unique(a_sample)) == 64 and 0.3 < np.mean(a_sample) < 0.7


def steps(second, dino, parts, batch, count, **options):
    """The states and the metrics after each of so many steps."""
    second = dataclasses.replace(second, options=dataclasses.replace(second.options, **options))
    optimizer = make_optimizer(second.options.optimizer, 8, second.rates, second.starts)
    frozen = second.frozen(parts | {"dino": dino})
    state = init_state(second, optimizer, jax.random.key(3), frozen)
    step = jax.jit(make_train_step(second, second.options, optimizer))
    states, found = [], []
    for _ in range(count):
        state, metrics = step(state, frozen, batch)
        states.append(state)
        found.append(metrics)
    return states, found


@pytest.fixture(scope="module")
def whole(trained, on_dino):
    """The state and the metrics after one step of both players."""
    parts, batch = trained
    second = method(on_dino[0], **SECOND | BOTH)
    (state,), (metrics,) = steps(second, on_dino[1], parts, batch, 1)
    return state, metrics


def test_accumulation_is_the_large_batch_for_both_players(trained, on_dino, whole):
    """With noise, augmentation, and norms over groups of two samples."""
    parts, batch = trained
    second = method(on_dino[0], **SECOND | BOTH)
    (halves,), _ = steps(second, on_dino[1], parts, batch, 1, accumulate=2)
    # Decoded images are rounded to 8 bits: the last bit of the decoder becomes one of 255 here
    # and there, and a logit may cross the hinge: that is what the discriminator's tolerance is for.
    # Half of the batch alone would be wrong by half or more.
    for name, tolerance in (("decoder", 1e-5), ("discriminator", 0.1)):
        a, b = (
            jax.flatten_util.ravel_pytree(optax.tree.get(state["optimizer"], "mu")[name])[0]
            for state in (whole[0], halves)
        )
        assert np.linalg.norm(a - b) < tolerance * np.linalg.norm(a)


def test_players_start_at_their_steps(trained, on_dino):
    """The discriminator, its moments and its schedule begin at step 2; its vectors always move."""
    parts, batch = trained
    second = method(on_dino[0], **SECOND)
    before = second.init(jax.random.split(jax.random.key(3))[0], second.frozen(parts))
    (_, early, _, _, late), found = steps(second, on_dino[1], parts, batch, 5)
    head = lambda state: state["params"]["discriminator"]["heads"][0]["first"]  # noqa: E731
    first = before["discriminator"]["heads"][0]["first"]
    np.testing.assert_array_equal(head(early)["kernel"], first["kernel"])
    assert np.abs(head(late)["kernel"] - first["kernel"]).max() > 0
    assert np.abs(head(early)["left"] - first["left"]).max() > 0
    np.testing.assert_allclose(np.linalg.norm(head(late)["left"]), 1, rtol=1e-5)
    counts = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(late["optimizer"])
              if "count" in jax.tree_util.keystr(path)]  # fmt: skip
    assert {int(count) for count in counts} == {5, 3}
    assert {"discriminator", "adversarial", "logit_real"} <= found[0].keys()


def test_the_adaptive_weight_balances_the_last_layer(trained, on_dino, whole):
    parts, batch = trained
    silent = dict(latent_noise=0.0, latent_noise_end=0.0, latent_noise_ramp=0)
    second = method(on_dino[0], **SECOND | BOTH | silent, adaptive=True)
    _, found = steps(second, on_dino[1], parts, batch, 1)
    assert math.isfinite(found[0]["adaptive_weight"]) and found[0]["adaptive_weight"] > 0
    assert "adaptive_weight" not in whole[1]
    pixel, fooling = float(found[0]["pixel"]), float(found[0]["adversarial"])
    expected = pixel + 0.5 * float(found[0]["adaptive_weight"]) * fooling
    np.testing.assert_allclose(
        found[0]["loss"] - found[0]["discriminator"], expected, rtol=1e-4, atol=1e-5
    )


def test_the_classifier_trains_the_vit(trained):
    parts, batch = trained
    of = tokenizer()
    head = Network(lambda rngs: Linear(2 * WIDTH, 4, rngs=rngs))
    teacher = ViTClassifier(of, head, ViTClassifierOptions(label_smoothing=0.0, augment=False))
    params = {"vit": parts["vit"], "head": head.init(jax.random.key(0))}
    keys = teacher.keys(jax.random.key(0), 4)
    (loss, found), slopes = jax.jit(jax.value_and_grad(teacher.loss, has_aux=True))(
        params, {}, batch, keys
    )
    logits = teacher._logits(params, to_float(batch["images"]))
    expected = -np.mean(jax.nn.log_softmax(logits)[np.arange(4), batch["labels"]])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert np.abs(slopes["vit"]["patch_embedding"]["kernel"]).max() > 0


def raw(**groups):
    data = dict(source="npz", path="x.npz", image_size=32, channels=3, num_classes=4)
    base = dict(stages=("teacher", "align"), data=data, tokenizer=dict(name="hae", **SIZES))
    base |= dict(teacher=dict(method="vit_classifier"), align=dict(method="hae"))
    return {k: (base.get(k, {}) | v if isinstance(v, dict) else v)
            for k, v in (base | groups).items()}  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (dict(stages=("align",)), "config.align needs a ViT"),
        (dict(align=dict(encoder="frozen")), "has nothing to align"),
        (dict(align=dict(encoder="frozen", align="none")), "needs a stage before it that trains"),
        (dict(tokenizer=dict(patch=6)), "patch=6 must be 2, 4, 8 or 16"),
        (dict(tokenizer=dict(stem_widths=(8, 8))), "must hold 1 widths"),
        (dict(tokenizer=dict(decoder_widths=(8, 16, 48))), "48 must divide 4 times the 16"),
        (dict(tokenizer=dict(decoder_widths=(8, 16, 24))), "must be a multiple of the ViT's width"),
        (dict(tokenizer=dict(vit="dinov3_vits16", vit_width=16)), "fixes its sizes"),
        (dict(align=dict(dino="d.safetensors")), "adversarial_weight=0 has no discriminator"),
        (dict(align=dict(adversarial_weight=1, norm_group=3)), "must be a multiple of norm_group"),
        (dict(align=dict(adversarial_weight=1, adaptive=True, most_per_device=2)),
         "set accumulate instead"),
        (dict(align=dict(adversarial_weight=1, discriminator="patch_batch_norm")),
         "statistics of several samples"),
        (dict(align=dict(align="none", align_weight=0.4)), "has no weight"),
        (dict(data=dict(num_classes=1)), "needs data of 2 classes"),
        (dict(align=dict(latent_noise_end=1.0)), "go together"),
        (dict(align=dict(adversarial_weight=1, discriminator_from=9, adversarial_from=3)),
         "must rise"),
    ],
)  # fmt: skip
def test_refused_configs(groups, words):
    tokenizer = raw()["tokenizer"] | groups.pop("tokenizer", {})
    if tokenizer["vit"]:
        for key in ("vit_depth", "vit_heads", "patch"):
            del tokenizer[key]
    assert words in refusal_of(read_config, raw(tokenizer=tokenizer, **groups))


def test_a_config_of_all_stages_is_read():
    config = read_config(raw())
    assert config.method("align").trains_tokenizer == config.tokenizer.name
    assert AutoencodingOptions().discriminator == "dino_released"
