"""The programs of a run as they are traced for a mesh; nothing is compiled."""

import jax
import numpy as np
import pytest

from sphere_jax.config.reading import read_config
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.rehearsal.programs import programs_of

IMAGES = {
    "stages": ("vae", "flow"),
    "data": {"source": "digits", "image_size": 16},
    "tokenizer": {"name": "conv_vae", "patch": 4, "widths": (8, 16), "latent_channels": 4},
    "model": {"width": 32, "depth": 2, "heads": 2, "unroll": False, "remat": "blocks"},
    "vae": {"steps": 6, "batch_size": 16},
    "flow": {"steps": 12, "batch_size": 16},
    "sampler": {"steps": 2, "batch_size": 16},
    "evaluation": {"features": "efficientnet_lite0", "pretrained": "x", "every": 4},
}


def programs(config: dict) -> dict:
    mesh = make_mesh(devices=jax.devices()[:1])
    return {program.name: program for program in programs_of(read_config(config), mesh)}


@pytest.fixture(scope="module")
def of_images():
    return programs(IMAGES)


def test_every_program_is_there(of_images):
    assert list(of_images) == ["train vae", "train flow", "sample", "score"]


def test_the_scorer_draws_decodes_and_computes_features(of_images):
    sample, score = of_images["sample"], of_images["score"]
    assert score.examples == sample.examples == 16
    assert score.flops > 2 * sample.flops
    images, features = score.traced.out_info[0]
    assert images.shape == (16, 16, 16, 3) and features["features"].shape == (16, 1280)


def test_the_train_state_lies_beside_what_scores_while_training(of_images):
    train = of_images["train flow"].parts
    beside = train["params"] + train["optimizer"]  # samples use the average
    assert of_images["sample"].parts["train state"] == beside > 0
    assert of_images["score"].parts["train state"] == beside
    at_the_end = programs(IMAGES | {"evaluation": IMAGES["evaluation"] | {"every": 0}})
    assert at_the_end["sample"].parts["train state"] == 0


def test_what_recomputing_less_would_store(of_images):
    assert of_images["train vae"].recomputing.key == ""  # this tokenizer has no such option
    key, policy, more = of_images["train flow"].recomputing
    assert (key, policy) == ("config.model.remat", "blocks")
    # By layer and token: queries, keys and values, attention's output, twice the feed-forward's
    # hidden units, its output and six modulations, some of them for both.
    of_products = 4 * 2 * 16 * 16 * 32
    assert 5 * of_products < more < 20 * of_products


@pytest.mark.parametrize("where", ["tokenizer", "model"])
def test_bfloat16_is_meant_wherever_an_option_says_so(where):
    changed = IMAGES | {where: IMAGES[where] | {"compute_dtype": "bfloat16"}}
    if where == "tokenizer":  # conv_vae has no such option
        changed["tokenizer"] = {"name": "tiny_vae", "kind": "taef2", "compute_dtype": "bfloat16"}
        changed |= {"stages": ("flow",), "data": {"source": "digits", "image_size": 32}}
    found = programs(changed)
    assert found["train flow"].bfloat16 and found["sample"].bfloat16
    assert not found["score"].bfloat16  # features are of float32


def test_cached_latents_have_16_bits_until_a_device_has_them():
    tokenizer = {"name": "tiny_vae", "kind": "taef2"}
    data = {"source": "cache", "image_size": 32, "num_classes": 10}
    changed = {"stages": ("flow",), "data": data, "tokenizer": tokenizer, "evaluation": {}}
    traced = programs(IMAGES | changed)["train flow"].traced
    of_latents = [
        each for each in traced.jaxpr.in_avals if each.shape[:1] == (16,) and each.ndim == 4
    ]
    assert [each.dtype for each in of_latents] == [np.float16]
