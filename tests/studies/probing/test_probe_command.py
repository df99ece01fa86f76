"""The command on a tiny VAE with random weights: page, JSON, verdicts; errors in one sentence."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from refusals import refusal_of

from sphere_jax import main, probe
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.models.lpips import LPIPS
from sphere_jax.models.tiny_vae import KINDS, TinyVAE
from sphere_jax.nn.functional import Network
from sphere_jax.studies.probing.distances import Comparison, load_perceptual
from sphere_jax.weights.stored import write_weights

ROOT = Path(__file__).parents[3]


def write(path, module, name):
    rng, network = np.random.default_rng(0), Network(module)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda s: 0.05 * rng.standard_normal(s.shape).astype("f4"), shapes)
    if "heads" in params:
        params["heads"] = jax.tree.map(abs, params["heads"])  # a distance
    write_weights(path, params, name, "random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of 32 pixels, a tokenizer and LPIPS."""
    folder = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 32, 32, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(30) % 2)
    write(folder / "taesd.safetensors", lambda rngs: TinyVAE(*KINDS["taesd"], rngs=rngs), "taesd")
    write(folder / "lpips.safetensors", lambda rngs: LPIPS("alex", rngs=rngs), "lpips_alexnet")
    return folder


def flags(folder, **more):
    given = {
        "config": ROOT / "configs" / "probe_flowers.py",
        "config.data.path": folder / "images.npz",
        "config.data.image_size": 32,
        "config.tokenizer.kind": "taesd",
        "config.tokenizer.pretrained": folder / "taesd.safetensors",
        "num": 4,
        "batch": 4,
        "out": folder / "out",
        **more,
    }
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


@pytest.fixture(scope="module")
def out(folder):
    probe.main(flags(folder, lpips=folder / "lpips.safetensors"))
    return folder / "out"


def test_the_page_needs_no_other_file(out):
    page = (out / "probe.html").read_text()
    assert page.count("<img") == page.count("data:image/png;base64,") == 6
    assert "http" not in page and "left out, no --features" in page
    for title in ("Component swap", "Matched perturbation", "Noise on the directions"):
        assert title in page


def test_the_json_has_every_number(out):
    found = json.loads((out / "probe.json").read_text())
    assert {claim["shown"] for claim in found["claims"]} <= {"yes", "in part", "no"}
    assert len(found["claims"]) == 9
    assert found["shells"]["noise"]["radius"] == pytest.approx(1.88, abs=0.1)  # chi of 4
    whole = found["swap"]["b (whole latent)"]["to b"]
    assert whole["lpips"]["value"] == pytest.approx(0)
    assert set(found["matched"]) == {"radial", "angular"}
    assert len(found["paths"]["slerp"]["share"]) == len(found["times"]) == 21
    assert "semantic" not in whole
    assert found["protocol"]["images"] == "4 held-out images of 32x32x3"


@pytest.mark.slow
def test_a_tokenizer_that_a_run_has_trained(tmp_path):
    run = tmp_path / "run"
    main.main([*tiny_run.FLAGS, "--config.stages=vae,", f"--workdir={run}"])
    probe.main([f"--workdir={run}", "--num=12", "--batch=8", f"--out={tmp_path}"])
    found = json.loads((tmp_path / "probe.json").read_text())
    assert found["protocol"]["tokenizer"]["name"] == "conv_vae"
    assert found["protocol"]["images"] == "12 held-out images of 16x16x1"
    assert set(found["fixed norm"]["sqrt(d)"]) == {"norm", "psnr", "error"}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"config": None, "config.data.image_size": None}, "Give --config=FILE or --workdir"),
        ({"features": "efficientnet_lite0"}, "go together"),
        ({"num": 1}, "--num must be a whole number of at least 2"),
        ({"seed": -1}, "--seed must be a whole number, 0 to"),
        ({"config.tokenizer.name": "conv_vae"}, "conv_vae"),
    ],
)
def test_an_error_is_one_sentence(folder, more, sentence):
    assert sentence in refusal_of(probe.main, flags(folder, **more))


def test_too_few_images_are_refused_before_weights_are_read(folder):
    """The file of weights is not there, and the images come first."""
    few = flags(folder, num=2, seed=0, **{"config.tokenizer.pretrained": folder / "nowhere"})
    assert "2 images hold no two of one class; give a larger --num" in refusal_of(probe.main, few)


def test_networks_that_do_not_fit_are_refused(folder):
    lpips, shape = folder / "lpips.safetensors", (32, 32, 3)
    assert "at least 31 pixels" in refusal_of(load_perceptual, lpips, (16, 16, 3))
    assert "it holds 'taesd'" in refusal_of(load_perceptual, folder / "taesd.safetensors", shape)
    assert "nowhere" in refusal_of(load_perceptual, "nowhere", shape)
    words = refusal_of(Comparison.load, "", "vgg", "file", shape, make_mesh(), 4)
    assert "--features='vgg' is not known" in words and "efficientnet_lite0" in words
    words = refusal_of(Comparison.load, "", "inception_fid", "file", shape, make_mesh(), 4)
    assert "--features=inception_fid gives no distance of two images; give one of clip" in words
    assert load_perceptual(lpips, shape).name == "lpips_alexnet"
