"""A data set encoded by the command, and flows trained on what it wrote."""

import json
import shutil
import socket
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny_run
from refusals import refusal_of
from safetensors.numpy import load_file

from sphere_jax import evaluate, main, prepare, probe, sample
from sphere_jax.config.config_files import load_config
from sphere_jax.data.latent_cache import read_cache
from sphere_jax.data.source import load
from sphere_jax.nn.pixels import to_float
from sphere_jax.runs import run as experiment
from sphere_jax.runs.encoder import Encoder
from sphere_jax.runs.run import open_run
from sphere_jax.runs.system import build_tokenizer
from sphere_jax.training.run_log import read_rows
from sphere_jax.weights.stored import write_weights

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.stages = ("flow",)
    config.data = dict(source="npz", path="{folder}/images.npz", image_size=8, channels=3,
                       num_classes=2)
    config.tokenizer = dict(name="tiny_vae", kind="taesd", pretrained="{folder}/taesd.safetensors")
    config.model = dict(width=16, depth=1, heads=2, patch=1, unroll=False)
    config.vae = dict(method="vae")
    config.decoder = dict(method="decoder", steps=2, batch_size=8)
    config.flow = dict(method="flow", steps=2, batch_size=8, preview_every=2, log_every=1)
    config.sampler = dict(steps=2)
    config.evaluation = dict(samples=0)
    return config
"""
COUNT, HELD = 32, 8  # of 40 images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a tokenizer's weights and a config."""
    folder = tmp_path_factory.mktemp("prepare")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    names = np.array(["ape", "bee"])
    np.savez(folder / "images.npz", images=images, labels=np.arange(40) % 2, classes=names)
    write_tokenizer(folder / "taesd.safetensors", 0)
    (folder / "config.py").write_text(CONFIG.format(folder=folder))
    return folder


def write_tokenizer(file, seed, kind="taesd"):
    tiny_run.write_tiny_vae(file, np.random.default_rng(seed), kind)


def encode(folder, out, *flags):
    fixed = ["--shard_size=12", "--dtype=float32", "--batch=8"]
    config = f"--config={folder / 'config.py'}"
    prepare.main(["latents", config, f"--out={folder / out}", *fixed, *flags])


@pytest.fixture(scope="module")
def cache(folder):
    encode(folder, "cache")
    return folder / "cache"


def use(cache) -> list[str]:
    return ["--config.data.source=cache", f"--config.data.path={cache}"]


def train(folder, workdir, *flags):
    main.main([f"--config={folder / 'config.py'}", f"--workdir={folder / workdir}", *flags])
    return [row["loss"] for row in read_rows(folder / workdir / "metrics.jsonl") if "loss" in row]


def test_the_cache_holds_what_the_tokenizer_gives(folder, cache):
    config = load_config(str(folder / "config.py"))
    tokenizer = build_tokenizer(config.data, config.tokenizer)
    params = jax.tree.map(np.asarray, tokenizer.load(config.tokenizer))
    expected = jax.jit(lambda x: tokenizer.encode(params, to_float(x)))
    cached = load(load_config(str(folder / "config.py"), use(cache)).data)
    for part, source in vars(load(config.data)).items():
        found = getattr(cached, part)
        np.testing.assert_array_equal(found.labels, source.labels)
        rows = np.arange(len(source))
        images = source.arrays["images"]
        for turned, pixels in ((False, images), (True, images[:, :, ::-1])):
            latents = found.read(rows, np.full(len(rows), turned))["latents"]
            np.testing.assert_allclose(latents, expected(pixels), atol=1e-5)
    index = json.loads((cache / "index.json").read_text())
    assert [s["images"] for s in index["shards"]["train"]] == [12, 12, 8]
    assert index["made_with"]["config.tokenizer.kind"] == "taesd"
    assert index["latent_shape"] == [1, 1, 4] and index["statistics"]["tokens"] == COUNT * 2


def test_finished_shards_are_kept_and_damaged_ones_written_again(folder, cache, monkeypatch):
    whole = folder / "goes_on"
    shutil.copytree(cache, whole)
    contents = {file.name: file.read_bytes() for file in whole.iterdir()}
    damaged = whole / "train-00001.arrayrecord"
    damaged.write_bytes(contents[damaged.name][:-1])
    (whole / "heldout-00000.json").unlink()  # killed before its shard counted
    (whole / "index.json").unlink()
    encoded, latents = [], Encoder.latents

    def watched(self, images, start, stop):
        encoded.append((len(images), start, stop))
        return latents(self, images, start, stop)

    monkeypatch.setattr(Encoder, "latents", watched)
    encode(folder, "goes_on")
    assert encoded == [(COUNT, 12, 24), (HELD, 0, 8)]
    assert {file.name: file.read_bytes() for file in whole.iterdir()} == contents
    assert "started with dtype='float32'" in refusal_of(
        encode, folder, "goes_on", "--dtype=bfloat16"
    )


@pytest.fixture(scope="module")
def trained(folder, cache):
    """The losses of a run on a cache that is gone afterwards."""
    moved = folder / "moved"
    shutil.copytree(cache, moved)
    losses = train(folder, "cached", *use(moved), "--config.evaluation.samples=4")
    shutil.rmtree(moved)
    return losses


def test_a_run_on_a_cache_samples_without_it(folder, trained):
    assert len(trained) == 2 and np.all(np.isfinite(trained))
    results = json.loads((folder / "cached" / "results.json").read_text())
    assert results["protocol"]["reference"]["name"] == "npz, held-out split"
    assert (folder / "cached" / "samples" / "final.png").is_file()
    workdir = f"--workdir={folder / 'cached'}"
    sample.main([workdir, "--num=4", "--labels=bee", f"--out={folder / 'drawn.npz'}"])
    drawn = np.load(folder / "drawn.npz")
    assert drawn["images"].shape == (4, 8, 8, 3) and drawn["labels"].tolist() == [1] * 4
    assert "holds no latent cache" in refusal_of(evaluate.main, [workdir, "--num=4"])


@pytest.mark.slow
def test_a_decoder_is_finetuned_on_the_images_behind_a_cache(folder, cache, monkeypatch):
    read = []
    monkeypatch.setattr(experiment, "load", lambda data: read.append(data) or load(data))
    both = ["--config.stages=(decoder,flow)", "--config.decoder.preview_every=2"]
    scored = ["--config.evaluation.samples=4", "--config.evaluation.classifier_steps=2"]
    train(folder, "tuned", *use(cache), *both, *scored)
    assert len(read) == 1  # for the stage and for the scores
    record = json.loads((folder / "tuned" / "stages" / "decoder.json").read_text())
    assert record["finished"]
    sample.main([f"--workdir={folder / 'tuned'}", "--num=2", f"--out={folder / 'tuned.npz'}"])
    assert np.load(folder / "tuned.npz")["images"].shape == (2, 8, 8, 3)


def test_the_images_behind_a_cache_are_probed(folder, cache):
    arguments = SimpleNamespace(workdir="", config=str(folder / "config.py"), out=folder / "probe")
    run = probe._open(arguments, use(cache))
    expected = load(load_config(arguments.config, []).data).heldout
    np.testing.assert_array_equal(run.images.heldout.arrays["images"], expected.arrays["images"])


@pytest.mark.slow
def test_a_run_on_a_cache_is_probed(folder, cache):
    """It has trained without an encoder; the probe has one."""
    train(folder, "probed", *use(cache))
    arguments = SimpleNamespace(workdir=folder / "probed", data_path="", data_source="")
    run = probe._open(arguments, [])
    params = probe._params(run, trained=True)
    assert params.keys() == set(run.tokenizer.parts) == {"encoder", "decoder"}
    assert run.images.heldout.arrays["images"].shape == (HELD, 8, 8, 3)


@pytest.mark.slow
def test_training_on_a_cache_is_training_on_the_images(folder, cache, trained):
    np.testing.assert_allclose(trained, train(folder, "in_memory"), rtol=1e-4)
    every_step = ("--config.flow.encode=every_step",)
    np.testing.assert_allclose(trained, train(folder, "every_step", *every_step), rtol=1e-4)
    flip = ("--config.data.flip=True",)
    flipped = train(folder, "flipped", *use(cache), *flip)
    again = train(folder, "flipped_images", *flip, *every_step)
    np.testing.assert_allclose(flipped, again, rtol=1e-4)
    assert not np.allclose(flipped, trained, rtol=1e-4)


def test_the_plan_of_a_run_on_a_cache(folder, cache, capsys):
    main.main([f"--config={folder / 'config.py'}", "--dry_run", *use(cache)])
    printed = capsys.readouterr().out
    assert "decoder" in printed and "encoder" not in printed
    assert "all in memory" not in printed
    every_step = "--config.flow.encode=every_step"  # which leaves a cache as it is
    main.main([f"--config={folder / 'config.py'}", "--dry_run", *use(cache), every_step])
    assert capsys.readouterr().out == printed
    main.main([f"--config={folder / 'config.py'}", "--dry_run"])
    printed = capsys.readouterr().out
    assert "memory      192 B an image, all in memory; the " in printed
    assert "memory      16 B an image, all in memory; the " in printed


def test_a_cache_of_other_options_is_refused(folder, cache):
    def words(*flags):
        return refusal_of(train, folder, "refused", *use(cache), *flags)

    assert "config.data.image_size=8, not 32" in words("--config.data.image_size=32")
    assert "config.data.resize='bicubic', not 'adm'" in words("--config.data.resize=adm")
    assert "config.data.num_classes=2, not 3" in words("--config.data.num_classes=3")
    assert "config.tokenizer.kind='taesd', not 'taef1'" in words("--config.tokenizer.kind=taef1")
    other = folder / "other.safetensors"
    write_tokenizer(other, 1)
    found = words(f"--config.tokenizer.pretrained={other}")
    assert "config.tokenizer.pretrained fingerprint=" in found
    assert "holds no latent cache" in words(f"--config.data.path={folder}")
    found = words("--config.tokenizer.compute_dtype=bfloat16", "--config.flow.batch_size=64")
    assert "more than the 32 training examples" in found  # rounding is no other tokenizer


@pytest.mark.slow
def test_a_cache_is_normalised_as_it_is_read(folder, cache, tmp_path):
    """By its own stored statistics: one encoding serves both."""
    config, measured = f"--config={folder / 'config.py'}", tmp_path / "measured.safetensors"
    prepare.main(["statistics", config, *use(cache), f"--out={measured}"])
    prepare.main(["statistics", config, "--batch=8", f"--out={tmp_path / 'encoded.safetensors'}"])
    ours, theirs = (load_file(tmp_path / f"{n}.safetensors") for n in ("measured", "encoded"))
    assert ours.keys() == theirs.keys() != set()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)

    given = f"--config.tokenizer.pretrained_statistics={measured}"
    encode(folder, "normalised", given)
    stored = read_cache(folder / "normalised")
    run = open_run(load_config(config.partition("=")[2], [*use(cache), given]), tmp_path, None)
    for part in ("train", "heldout"):
        rows = np.arange(len(stored[part][1]))
        for mirrored in (np.zeros(len(rows), bool), rows % 2 == 0):
            found = getattr(run.split, part).read(rows, mirrored)["latents"]
            expected = stored[part][0].take(rows, mirrored)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - read_cache(cache)[part][0].take(rows, mirrored)).max() > 0.1

    again = ["statistics", config, *use(folder / "normalised"), f"--out={measured}"]
    assert "holds normalised latents" in refusal_of(prepare.main, again)
    twice = {name: 2 * ours[name] for name in ours}
    write_weights(tmp_path / "twice.safetensors", twice, "taesd_statistics", "a test")
    other = f"--config.tokenizer.pretrained_statistics={tmp_path / 'twice.safetensors'}"
    normalised = load_config(config.partition("=")[2], [*use(folder / "normalised"), other])
    assert "holds latents made with" in refusal_of(open_run, normalised, tmp_path, None)


@pytest.mark.slow
def test_samples_are_scored_against_the_images_behind_a_cache(folder, cache, capsys):
    """They are found where they were, or where the config names them; other images are refused."""
    scored = ["--config.evaluation.samples=4", "--config.evaluation.classifier_steps=2"]
    original = folder / "images.npz"
    index = json.loads((cache / "index.json").read_text())
    assert index["images"] == {"source": "npz", "path": str(original)}
    older = folder / "older"  # made before caches stored the path of their images
    shutil.copytree(cache, older)
    tiny_run.edit_json(older / "index.json", "images")

    def words(*flags):
        return refusal_of(train, folder, "moved_images", *scored, *flags)

    assert "does not say which images" in words(*use(older))
    assert not (folder / "moved_images" / "config.json").exists()  # raised before anything trained
    moved = shutil.move(original, folder / "elsewhere.npz")
    try:
        assert "by --config.evaluation.data_path" in words(*use(cache))
        nowhere = "--config.evaluation.data_path=nowhere.npz"
        assert "are not at nowhere.npz" in words(*use(cache), nowhere)
        where = f"--config.evaluation.data_path={moved}"
        train(folder, "moved_images", *scored, *use(cache), where)
        source = "--config.evaluation.data_source=npz"
        train(folder, "moved_images", *scored, *use(older), where, source)
        assert capsys.readouterr().out.count("class_agreement = ") == 2
        evaluate.main([f"--workdir={folder / 'moved_images'}", "--num=4", f"--data_path={moved}"])
    finally:
        shutil.move(moved, original)
    other = folder / "other.npz"
    rng = np.random.default_rng(1)
    np.savez(other, images=rng.integers(0, 256, (40, 8, 8, 3), np.uint8), labels=np.arange(40) % 2)
    found = words(*use(cache), f"--config.evaluation.data_path={other}")
    assert "holds other images than those whose latents are in" in found
    assert "is scored against config.data itself" in words("--config.evaluation.data_path=x")


def test_images_written_by_the_command_are_trained_on(folder, capsys):
    flags = [f"--config={folder / 'config.py'}", f"--out={folder / 'written'}", "--shard_size=12"]
    prepare.main(["images", *flags])
    output = capsys.readouterr().out
    assert "32 training and 8 held-out images" in output
    assert (folder / "written" / "train-00002.array_record").exists()
    config = load_config(str(folder / "config.py"))
    source = ["--config.data.source=array_record", f"--config.data.path={folder / 'written'}"]
    written = load_config(str(folder / "config.py"), source)
    for part, original in vars(load(config.data)).items():
        found = getattr(load(written.data), part)
        rows = np.arange(len(original))
        np.testing.assert_array_equal(found.read(rows)["images"], original.read(rows)["images"])
        np.testing.assert_array_equal(found.labels, original.labels)
    for flag in ("--dtype=float32", "--batch=8"):
        assert "There is no flag" in refusal_of(prepare.main, ["images", *flags, flag])
    other = ["--config.data.image_size=16"]
    assert "started with image_size=8, not 16" in refusal_of(
        prepare.main, ["images", *flags, *other]
    )


def test_unencodable_data_is_a_user_error(folder, cache):
    assert "holds no images to encode" in refusal_of(encode, folder, "no", *use(cache))
    assert "at least 1" in refusal_of(encode, folder, "no", "--shard_size=0")
    crops = ["--config.data.source=folder", "--config.data.random_crop=(8,9)"]
    crops.append("--config.flow.encode=every_step")
    assert "leaves nothing to crop" in refusal_of(encode, folder, "no", *crops)
    own = folder / "own.py"
    text = (folder / "config.py").read_text()
    start, end = text.index("    config.tokenizer"), text.index("    config.model")
    own.write_text((text[:start] + text[end:]).replace('("flow",)', '("vae", "flow")'))
    flags = ["latents", f"--config={own}", f"--out={folder / 'no'}"]
    assert "is trained by a run" in refusal_of(prepare.main, flags)
    cached = [f"--config={own}", f"--workdir={folder / 'no'}", *use(cache)]
    assert "latents of a tokenizer whose weights are in files" in refusal_of(main.main, cached)
    assert not (folder / "no").exists()


@pytest.mark.slow
def test_two_processes_of_two_devices_write_one_cache(folder, cache):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    flags = [f"--config={folder / 'config.py'}", f"--out={folder / 'together'}"]
    flags += ["--shard_size=12", "--dtype=float32", "--batch=4"]
    processes = [
        tiny_run.launch(
            "prepare",
            "latents",
            *flags,
            devices=2,
            SPHERE_JAX_COORDINATOR=address,
            SPHERE_JAX_PROCESSES="2",
            SPHERE_JAX_PROCESS=str(number),
        )
        for number in range(2)
    ]
    try:
        (output, _), (silent, _) = (tiny_run.finish(process) for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert "32 training and 8 held-out" in output and "training" not in silent
    one, two = (
        load(load_config(str(folder / "config.py"), use(f)).data)
        for f in (cache, folder / "together")
    )
    for part in ("train", "heldout"):
        a, b = (np.asarray(getattr(split, part).arrays["latents"]) for split in (one, two))
        np.testing.assert_allclose(a, b, atol=1e-5)
