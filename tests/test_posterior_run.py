"""Flows trained on samples of a tokenizer's posterior: from images, from memory, from a cache."""

import jax
import numpy as np
import pytest
from refusals import refusal_of
from safetensors.numpy import load_file

from sphere_jax import main, prepare, sample
from sphere_jax.models.kl_vae import KINDS, AutoencoderKL
from sphere_jax.nn.functional import Network
from sphere_jax.training.run_log import read_rows
from sphere_jax.weights.stored import write_weights

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.stages = ("flow",)
    config.data = dict(source="npz", path="{folder}/images.npz", image_size=16, channels=3,
                       num_classes=2)
    config.tokenizer = dict(name="kl_vae", kind="sd", pretrained="{folder}/sd.safetensors",
                            latents="sample")
    config.model = dict(width=16, depth=1, heads=2, patch=1, unroll=False)
    config.flow = dict(method="flow", steps=3, batch_size=8, preview_every=9, log_every=1)
    config.sampler = dict(steps=2)
    config.evaluation = dict(samples=0)
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a config and the weights of a Stable Diffusion VAE, which is narrow here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "sd", dict(latent_channels=4, widths=(32, 32, 32, 32), blocks=1))
        folder = tmp_path_factory.mktemp("posterior")
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (40, 16, 16, 3), np.uint8)
        np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 2)
        network = Network(lambda rngs: AutoencoderKL(**KINDS["sd"], rngs=rngs))
        shapes = jax.eval_shape(network.init, jax.random.key(0))
        params = jax.tree.map(lambda s: 0.1 * rng.standard_normal(s.shape).astype("f4"), shapes)
        write_weights(folder / "sd.safetensors", params, "sd_vae", "random")
        (folder / "config.py").write_text(CONFIG.format(folder=folder))
        flags = ["--shard_size=12", "--dtype=float32", "--batch=8"]
        config = f"--config={folder / 'config.py'}"
        for out, latents in (("cache", "sample"), ("means", "mean")):
            choice = f"--config.tokenizer.latents={latents}"
            prepare.main(["latents", config, f"--out={folder / out}", *flags, choice])
        yield folder


def train(folder, workdir, *flags):
    main.main([f"--config={folder / 'config.py'}", f"--workdir={folder / workdir}", *flags])
    return [row["loss"] for row in read_rows(folder / workdir / "metrics.jsonl") if "loss" in row]


def of_cache(folder, name):
    return ["--config.data.source=cache", f"--config.data.path={folder / name}"]


def test_all_ways_to_sample_train_alike(folder, capsys):
    """An example gets the same sample of its posterior wherever its moments come from."""
    once = train(folder, "once")
    np.testing.assert_allclose(train(folder, "cached", *of_cache(folder, "cache")), once, rtol=1e-4)
    every_step = train(folder, "steps", "--config.flow.encode=every_step")
    np.testing.assert_allclose(every_step, once, rtol=1e-4)
    mean = train(folder, "mean", "--config.tokenizer.latents=mean")
    assert np.all(np.abs(np.array(mean) - once) > 1e-3)
    out = folder / "s.npz"
    sample.main([f"--workdir={folder / 'cached'}", "--num=2", f"--out={out}"])
    assert np.load(out)["images"].shape == (2, 16, 16, 3)
    words = refusal_of(train, folder, "refused", *of_cache(folder, "means"))
    assert "holds no standard deviations" in words
    words = refusal_of(train, folder, "mean", "--config.tokenizer.latents=sample")
    assert "config.tokenizer.latents" in words and "'mean'" in words


def test_statistics_are_those_of_samples(folder):
    def measured(out, *flags):
        config = f"--config={folder / 'config.py'}"
        prepare.main(["statistics", config, f"--out={folder / out}", *flags])
        return load_file(folder / out)

    samples = measured("samples.safetensors")["std"]
    means = measured("means.safetensors", "--config.tokenizer.latents=mean")["std"]
    assert np.all(samples > means)
    cached = measured("cached.safetensors", *of_cache(folder, "cache"))["std"]
    np.testing.assert_allclose(cached, samples, rtol=0.2)
    words = refusal_of(
        measured, "x.safetensors", *of_cache(folder, "cache"), "--config.tokenizer.latents=mean"
    )
    assert "stores the statistics of samples: set config.tokenizer.latents='sample'" in words
