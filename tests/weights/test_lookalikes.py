"""Whose weights a file holds, where several networks have the same tensors."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from sphere_jax.common import fingerprints
from sphere_jax.common.errors import UserError
from sphere_jax.weights import lookalikes
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.lookalikes import SIGNS, identified, unidentified
from sphere_jax.weights.stored import load_weights


@pytest.fixture
def file(tmp_path):
    """Weights whose place and name say nothing."""
    folder = tmp_path / "a" / "b" / "c" / "d"
    folder.mkdir(parents=True)
    save_file({"a": np.zeros(1)}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def test_signs_are_of_networks_that_exist():
    assert SIGNS.keys() <= catalogue().keys()


@pytest.mark.parametrize("name", ["sd_vae", "flux1_vae", "repae_flux1_vae"])
def test_without_a_sign_the_user_is_asked(file, name):
    assert identified(name, [file]) == ""
    assert f"tells '{name}' from " in unidentified(name)
    with pytest.raises(UserError, match=f"--confirm={name} if you know that it is"):
        load_weights(file, name, None, None)


@pytest.mark.parametrize("name", ["taesd", "sit_xl_2", "inception_fid"])
def test_others_are_taken_without_one(file, name):
    assert identified(name, [file]) == unidentified(name) == ""


@pytest.mark.parametrize(
    ("name", "scaling", "fits"),
    [
        ("sd_vae", {"scaling_factor": 0.18215}, True),
        ("sd_vae", {}, True),  # as of the first files, before there was the key
        ("sd_vae", {"scaling_factor": 0.13025}, False),  # SDXL
        ("flux1_vae", {"scaling_factor": 0.3611, "shift_factor": 0.1159}, True),
        ("flux1_vae", {"scaling_factor": 1.5305, "shift_factor": 0.0609}, False),  # SD3
    ],
)
def test_the_config_beside_it(file, name, scaling, fits):
    config = {"_class_name": "AutoencoderKL", **scaling}
    (file.parent / "config.json").write_text(json.dumps(config))
    for path in (file, file.parent):
        if fits:
            assert identified(name, [path]) == "config.json beside it"
        else:
            with pytest.raises(ValueError, match="config.json has scaling_factor=.* not scaling"):
                identified(name, [path])
    (file.parent / "config.json").write_text('{"scaling_factor": 1}')  # of another program
    assert identified(name, [file]) == ""


@pytest.mark.parametrize(
    ("name", "path", "known"),
    [
        ("sd_vae", "sd-vae-ft-mse/diffusion_pytorch_model.safetensors", True),
        ("sd_vae", "stable-diffusion-v1-5/vae/diffusion_pytorch_model.safetensors", True),
        ("sd_vae", "vae-ft-mse-840000-ema-pruned.safetensors", True),
        ("sd_vae", "sdxl_vae.safetensors", False),
        ("sd_vae", "stable-diffusion-xl-base-1.0/vae/diffusion_pytorch_model.safetensors", False),
        ("flux1_vae", "FLUX.1-schnell/vae/diffusion_pytorch_model.safetensors", True),
        ("flux1_vae", "stable-diffusion-3-medium/vae/diffusion_pytorch_model.safetensors", False),
        ("flux1_vae", "sd3_vae.safetensors", False),
        ("flux1_vae", "e2e-flux-vae/diffusion_pytorch_model.safetensors", False),
        ("repae_flux1_vae", "e2e-flux-vae/diffusion_pytorch_model.safetensors", True),
        ("taesd", "taesdxl_encoder.pth", False),
        ("taef1", "taesd3_encoder.pth", False),
        ("taef1", "taef1_encoder.pth", True),
        ("dit_xl_2", "SiT-XL-2-256.pt", False),
        ("sit_xl_2", "dit/SiT-XL-2-256.pt", True),  # the nearest name counts
    ],
)
def test_the_names_of_published_files(file, name, path, known):
    path = file.parent / path
    if known:
        assert identified(name, [path]).startswith("the name '")
    else:
        with pytest.raises(ValueError, match="is named after another network"):
            identified(name, [path])


def test_the_metadata_of_the_file(file):
    save_file({"a": np.zeros(1)}, file, {"modelspec.architecture": "stable-diffusion-xl-v1-base"})
    with pytest.raises(ValueError, match="names itself in modelspec.architecture"):
        identified("sd_vae", [file])
    save_file({"a": np.zeros(1)}, file, {"modelspec.architecture": "stable-diffusion-v1"})
    assert identified("sd_vae", [file]) == "its metadata"


def test_known_digests(file, monkeypatch):
    digest = fingerprints.of_file(file, lookalikes.DIGITS)
    assert all(
        len(d) == len(digest) for s in SIGNS.values() for d in (*s.digests, *s.other_digests)
    )
    monkeypatch.setitem(lookalikes.SDXL, digest, "SDXL's VAE")
    with pytest.raises(ValueError, match="holds the weights of SDXL's VAE"):
        identified("sd_vae", [file])
    monkeypatch.delitem(lookalikes.SDXL, digest)
    monkeypatch.setitem(lookalikes.SD, digest, "Stable Diffusion's VAE")
    assert identified("sd_vae", [file]) == "its SHA-256"
