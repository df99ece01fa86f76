"""A published tokenizer and a published generator in a whole run, and a trained one exported."""

import json

import numpy as np
import pytest
import tiny_run
from refusals import refusal_of
from safetensors.numpy import load_file

from sphere_jax import convert, main, sample
from sphere_jax.common.errors import UserError
from sphere_jax.weights.stored import write_weights

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.stages = ("flow",)
    config.data = dict(source="npz", path="{folder}/images.npz", image_size=16, channels=3,
                       num_classes=2)
    config.tokenizer = dict(name="tiny_vae", kind="taesd", pretrained="{folder}/taesd.safetensors")
    config.model = dict(width=16, depth=2, heads=2, patch=2, unroll=False)
    config.decoder = dict(method="decoder", steps=2, batch_size=8, preview_every=2)
    config.flow = dict(method="flow", steps=4, batch_size=8, preview_every=4, pretrained="")
    config.sampler = dict(steps=2)
    config.evaluation = dict(samples=0)
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a tokenizer's weights and a config."""
    folder = tmp_path_factory.mktemp("pretrained")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 16, 16, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 2)
    tiny_run.write_tiny_vae(folder / "taesd.safetensors", rng)
    (folder / "config.py").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    workdir = folder / "run"
    main.main([f"--config={folder / 'config.py'}", f"--workdir={workdir}"])
    return workdir


def latents(workdir, out):
    sample.main([f"--workdir={workdir}", "--num=4", f"--out={out}"])
    return np.load(out)["images"]


def test_a_run_on_a_frozen_tokenizer(run, folder):
    assert latents(run, folder / "a.npz").shape == (4, 16, 16, 3)
    depends = json.loads((run / "stages" / "flow.json").read_text())["depends"]
    assert len(depends["config.tokenizer.pretrained fingerprint"]) == 16


@pytest.mark.slow
def test_a_trained_network_is_exported_and_loaded_again(run, folder):
    """Exported to PyTorch's layout, it is used unchanged by a run of no steps."""
    out = folder / "sit.safetensors"
    convert.main([f"--from={run}", "--export", f"--out={out}"])
    assert "blocks.1.attn.qkv.weight" in load_file(out)
    again = folder / "again"
    flags = [f"--config={folder / 'config.py'}", f"--workdir={again}"]
    flags += ["--config.flow.steps=0", f"--config.flow.pretrained={out}"]
    main.main(flags)
    main.main(flags)  # finished before
    np.testing.assert_array_equal(latents(again, folder / "b.npz"), latents(run, folder / "a.npz"))


@pytest.mark.slow
def test_decoder_finetuning_starts_from_the_published_decoder(folder):
    workdir = folder / "finetuned"
    flags = [f"--config={folder / 'config.py'}", f"--workdir={workdir}"]
    main.main([*flags, "--config.stages=decoder,"])
    metrics = json.loads((workdir / "stages" / "decoder.json").read_text())["metrics"]
    cells = [f"{z}_{d}" for z in ("raw", "projected") for d in ("original", "finetuned")]
    assert set(metrics) == {f"{m}_{cell}" for cell in cells for m in ("psnr", "ssim")}
    assert (workdir / "report.html").is_file()


def refusal(folder, *flags, workdir="refused") -> str:
    return refusal_of(
        main.main, [f"--config={folder / 'config.py'}", f"--workdir={folder / workdir}", *flags]
    )


def test_misfits_are_user_errors(run, folder):
    assert "config.tokenizer.pretrained is empty" in refusal(
        folder, "--config.tokenizer.pretrained="
    )
    assert "'taef1': it holds 'taesd'" in refusal(folder, "--config.tokenizer.kind=taef1")
    assert "multiple of 8" in refusal(folder, "--config.data.image_size=20")
    assert "config.data.channels=3" in refusal(folder, "--config.data.channels=1")
    assert "config.flow.pretrained unchanged, but it is empty" in refusal(
        folder, "--config.flow.steps=0"
    )
    other = folder / "other.safetensors"
    write_weights(other, {"a": np.zeros(3)}, "something", "nowhere")
    given = ("--config.flow.encode=every_step", f"--config.flow.pretrained={other}")
    words = refusal(folder, *given)
    assert "does not give the weights of config.model" in words
    write_weights(other, {"a": np.zeros(3)}, "sit_b_2", "nowhere")
    words = refusal(folder, *given)
    assert "set config.model.parameterization='data_at_one', not 'noise_at_one'" in words


def test_a_tokenizer_that_was_exchanged_is_detected(run, folder):
    file = folder / "taesd.safetensors"
    content = file.read_bytes()
    tiny_run.write_tiny_vae(file, np.random.default_rng(1))
    try:
        with pytest.raises(UserError, match="has other weights than those that stage 'flow'"):
            latents(run, folder / "c.npz")
        assert "pretrained fingerprint" in refusal(folder, workdir="run")
    finally:
        file.write_bytes(content)
