"""The programs of a run as they are traced for a mesh; nothing is compiled."""

import jax
import numpy as np
import pytest

from sphere_jax.config.reading import read_config
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.rehearsal.programs import programs_of
from sphere_jax.rehearsal.recomputing import recomputing

DATA = {"source": "cifar10", "image_size": 32, "channels": 3, "num_classes": 10}
CONFIG = {
    "stages": ("flow",),
    "data": DATA,
    "tokenizer": {"name": "tiny_vae", "kind": "taef2", "compute_dtype": "bfloat16"},
    "model": {"width": 32, "depth": 2, "heads": 2, "unroll": False, "remat": "blocks"},
    "flow": {"steps": 12, "batch_size": 16},
    "sampler": {"steps": 2, "batch_size": 16},
    "evaluation": {"features": "efficientnet_lite0", "pretrained": "x", "every": 4},
}
TOKENS, WIDTH, BYTES = 16 * 4 * 4, 32, 4


def programs(until: str = "score", **groups) -> dict:
    """By name, for one device: those of CONFIG with these groups, up to one of them."""
    config, mesh = read_config(CONFIG | groups), make_mesh(devices=jax.devices()[:1])
    found = {}
    for program in programs_of(config, mesh):
        found[program.name] = program
        if program.name == until:
            break
    return found


@pytest.fixture(scope="module")
def found():
    return programs()


def test_every_program_is_there(found):
    assert list(found) == ["train flow", "sample", "score"]


def test_the_scorer_draws_decodes_and_computes_features(found):
    sample, score = found["sample"], found["score"]
    assert score.examples == sample.examples == 16
    assert score.flops > sample.flops + 16 * 2 * 300e6  # multiply-adds of the network's paper
    images, features = score.traced.out_info[0]
    assert images.shape == (16, 32, 32, 3) and features["features"].shape == (16, 1280)


def test_the_train_state_lies_beside_what_scores_while_training(found):
    train = found["train flow"].parts
    beside = train["params"] + train["optimizer"]  # samples use the average
    assert found["sample"].parts["train state"] == beside > 0
    assert found["score"].parts["train state"] == beside
    at_the_end = programs("sample", evaluation={})
    assert at_the_end["sample"].parts["train state"] == 0


def test_what_recomputing_less_would_store(found):
    key, policy, more = found["train flow"].recomputing
    assert (key, policy) == ("config.model.remat", "blocks")
    # Of a layer's products: queries, keys, values and output of attention, both of the feed-forward
    # (4 and 1 times the width), and modulations, which are not of tokens.
    of_tokens = 2 * (4 + 4 + 1) * TOKENS * WIDTH * BYTES
    assert of_tokens <= more < 1.2 * of_tokens


def test_a_stage_whose_networks_recompute_nothing():
    groups = {"stages": ("vae",), "tokenizer": {"name": "conv_vae"}, "vae": {"steps": 6}}
    config = read_config({"data": DATA} | groups)
    assert recomputing(config, "vae", {}, {}, 16) == ("", "none", 0)


def test_bfloat16_is_meant_wherever_an_option_says_so(found):
    assert found["train flow"].bfloat16 and found["sample"].bfloat16
    assert not found["score"].bfloat16  # features are of float32
    in_float32 = programs(
        "train flow", tokenizer=CONFIG["tokenizer"] | {"compute_dtype": "float32"}
    )
    assert not in_float32["train flow"].bfloat16


def test_cached_latents_have_16_bits_until_a_device_has_them():
    traced = programs("train flow", data=DATA | {"source": "cache"})["train flow"].traced
    batch = [each for each in traced.jaxpr.in_avals if each.shape == (16, 4, 4, 32)]
    assert [each.dtype for each in batch] == [np.float16]
