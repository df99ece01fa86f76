"""`sphere_jax.ema`: snapshots of a run to weights that a run of no steps takes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphere_jax import ema
from sphere_jax.common.errors import UserError
from sphere_jax.config.reading import read_config, to_dict
from sphere_jax.runs.network_files import load_files
from sphere_jax.runs.system import System
from sphere_jax.training.ema_profiles import gamma_of
from sphere_jax.training.ema_snapshots import save_snapshots, snapshot_folder
from sphere_jax.weights.layouts import generators
from sphere_jax.weights.stored import trained_as
from sphere_jax.weights.tensors import convert, export

RAW = {
    "stages": ("flow",),
    "data": {"source": "latents", "num_classes": 3},
    "tokenizer": {"name": "precomputed", "latent_shape": (2, 2, 4)},
    "model": {"width": 16, "depth": 1, "heads": 2},
    "flow": {"steps": 0},
}
WIDTHS, EVERY, STEPS = (0.05, 0.1), 10, 200


def flow(path="none"):
    raw = RAW | {"flow": RAW["flow"] | {"pretrained": path}}
    return System(read_config(raw)).generator


DENOISER = {
    "space": {"sphere": "global"},
    "model": RAW["model"] | {"name": "denoiser"},
    "stages": ("sphere_latent",),
}


def denoiser_config(path="none"):
    stage = {"sphere_latent": {"steps": 0, "pretrained": path}}
    raw = {key: value for key, value in RAW.items() if key != "flow"}
    return raw | DENOISER | stage


def denoiser(path="none"):
    return System(read_config(denoiser_config(path))).generator


def line(shapes, at):
    """Parameters that move on a line with the steps: an average is the line at the mean step."""
    return jax.tree.map(lambda s: jnp.full(s.shape, 2.0 + at / STEPS), shapes)


def mean_step(t, sigma_rel):
    ends = (np.arange(t + 1) / t) ** (gamma_of(sigma_rel) + 1)
    return np.diff(ends) @ np.arange(1, t + 1)


@pytest.fixture(scope="module")
def shapes():
    return jax.eval_shape(flow().init, jax.random.key(0), {})


@pytest.fixture
def workdir(tmp_path, shapes):
    """A run of 200 steps, of which the second was left out for its NaN."""
    folder = snapshot_folder(tmp_path / "checkpoints" / "flow")
    for step in range(EVERY, STEPS + 1, EVERY):
        updates = step - 1
        profiles = {str(w): line(shapes, mean_step(updates, w)) for w in WIDTHS}
        save_snapshots(folder, step, updates, profiles)
    (tmp_path / "checkpoints" / "flow").mkdir()
    write_config(tmp_path, RAW | {"flow": RAW["flow"] | {"pretrained": "none"}})
    return tmp_path


def write_config(folder, raw):
    content = {"config": to_dict(read_config(raw))}
    (folder / "config.json").write_text(json.dumps(content))


def flags(workdir, sigma_rel, *more):
    return [f"--workdir={workdir}", f"--sigma_rel={sigma_rel}", *more]


@pytest.mark.parametrize(("step", "sigma_rel"), [(200, 0.15), (120, 0.07), (200, 0.1)])
def test_the_weights_are_those_of_the_profile_and_a_flow_starts_from_them(
    workdir, shapes, step, sigma_rel, capsys
):
    out = workdir / "weights.safetensors"
    at = [f"--step={step}"] if step < STEPS else []
    ema.main(flags(workdir, sigma_rel, f"--out={out}", *at))
    assert f"average of width {sigma_rel} at step {step}" in capsys.readouterr().out
    about = trained_as(out)
    assert about["config.space.path"] == "slerp" and about["config.model.heads"] == 2
    assert about["config.model.parameterization"] == "noise_at_one"
    initial = load_files(flow(str(out)).pretrained())
    expected = 2.0 + mean_step(step - 1, sigma_rel) / STEPS
    assert jax.tree.map(lambda leaf: leaf.shape, initial) == jax.tree.map(lambda s: s.shape, shapes)
    for leaf in jax.tree.leaves(initial):
        np.testing.assert_allclose(np.asarray(leaf), expected, rtol=2e-4)


def test_a_denoiser_starts_from_averages_too(tmp_path):
    """Those of a sphere_latent stage; a flow on the same latents has another network."""
    shapes = jax.eval_shape(denoiser().init, jax.random.key(0), {})
    folder = snapshot_folder(tmp_path / "checkpoints" / "sphere_latent")
    (tmp_path / "checkpoints" / "sphere_latent").mkdir(parents=True)
    for step in (EVERY, 2 * EVERY):
        profiles = {str(w): line(shapes, mean_step(step, w)) for w in WIDTHS}
        save_snapshots(folder, step, step, profiles)
    write_config(tmp_path, denoiser_config())
    out = tmp_path / "weights.safetensors"
    ema.main(flags(tmp_path, 0.1, f"--out={out}"))
    assert trained_as(out)["config.model.name"] == "denoiser"
    initial = load_files(denoiser(str(out)).pretrained())
    expected = 2.0 + mean_step(2 * EVERY, 0.1) / STEPS
    assert jax.tree.structure(initial) == jax.tree.structure(shapes)
    for leaf in jax.tree.leaves(initial):
        np.testing.assert_allclose(np.asarray(leaf), expected, rtol=2e-4)
    with pytest.raises(UserError, match="does not give the weights of config.model"):
        load_files(flow(str(out)).pretrained())
    with pytest.raises(UserError, match="uses config.sphere_latent.pretrained unchanged"):
        denoiser("")


def test_a_denoiser_is_exported_in_the_layout_of_its_blocks():
    network = denoiser().network
    params = jax.tree.map(np.asarray, network.init(jax.random.key(0)))
    known = generators.layouts(network)
    back = convert(export(params, known[0]), known, network)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out=w.npz"], "must name a .safetensors file"),
        (["--out=w.safetensors", "--step=15"], "--step=15 has no snapshot; there are: 10, 20,"),
        (["--out=w.safetensors", "--sigma_rel=0.3"], "--sigma_rel=0.3: a relative width lies"),
        (["--out=w.safetensors", "--stage=vae"], "--stage='vae' must be one of flow."),
        (
            ["--out=w.safetensors", "--sigma_rel=0.005"],
            "from the tracked widths (0.05, 0.1): the profile would be off by 57%; give 0.02 to "
            "0.26, or --force it.",
        ),
    ],
)
def test_bad_input_is_a_user_error(workdir, more, words):
    with pytest.raises(UserError) as caught:
        ema.main(flags(workdir, 0.15, *more))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_width_out_of_reach_may_be_forced(workdir, capsys):
    out = workdir / "weights.safetensors"
    ema.main(flags(workdir, 0.005, f"--out={out}", "--force"))
    assert "off by 57%" in capsys.readouterr().out and out.exists()


def test_a_run_without_snapshots_and_one_of_another_kind(tmp_path, shapes):
    (tmp_path / "checkpoints" / "vae").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no snapshots of averages; train with"):
        ema.main(flags(tmp_path, 0.15, "--out=w.safetensors"))
    profiles = {"0.1": {"decoder": line(shapes, 0)}}
    save_snapshots(snapshot_folder(tmp_path / "checkpoints" / "vae"), 5, 5, profiles)
    with pytest.raises(UserError, match="Stage 'vae' trained no network on latents"):
        ema.main(flags(tmp_path, 0.1, "--out=w.safetensors"))


def test_a_damaged_snapshot(workdir):
    file = next((workdir / "checkpoints" / "flow-ema").glob("*-0.1.safetensors"))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match="safetensors"):
        ema.main(flags(workdir, 0.15, "--out=w.safetensors"))
