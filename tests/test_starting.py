"""Runs that start from what other runs trained: by their folders, and by exported files."""

import json

import jax
import numpy as np
import pytest
import tiny_run
from refusals import refusal_of

from sphere_jax import convert, main, prepare, sample
from sphere_jax.config.reading import read_config
from sphere_jax.runs.loading import load_run, stored_config
from sphere_jax.runs.provenance import check_pretrained, initial_params, override_weights
from sphere_jax.weights.layouts import generators
from sphere_jax.weights.stored import fingerprint_of, trained_as

FEW = [
    *(f"--config.{stage}.steps=2" for stage in ("vae", "decoder", "flow")),
    "--config.evaluation.samples=0",
    "--config.sampler.steps=2",
]


def train(workdir, *flags):
    main.main([*tiny_run.FLAGS, *FEW, f"--workdir={workdir}", *map(str, flags)])
    return workdir


def opened(workdir, *flags):
    """A run before its first stage, with a tokenizer that comes from elsewhere."""
    run = tiny_run.unstarted(workdir, *tiny_run.FLAGS, *FEW, *flags)
    run.load_tokenizer()
    return run


def refusal(workdir, *flags) -> str:
    return refusal_of(train, workdir, *flags)


def drawn(workdir, out):
    sample.main([f"--workdir={workdir}", "--num=4", f"--out={out}"])
    return np.load(out)["images"]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("starting")


@pytest.fixture(scope="module")
def first(folder):
    """A run that trained a VAE, finetuned its decoder, and trained a flow."""
    return train(folder / "first")


@pytest.fixture(scope="module")
def exported(first, folder):
    files = {}
    for part in ("network", "tokenizer", "decoder"):
        files[part] = folder / f"{part}.safetensors"
        convert.main([f"--from={first}", f"--export={part}", f"--out={files[part]}"])
    return files


FROM = "--config.stages=flow,"


@pytest.fixture(scope="module")
def other_data(first, folder):
    """Flags of a flow that starts from the first's, with its tokenizer, on other classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 16, 16, 1), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(90) % 3)
    return [
        FROM,
        f"--config.tokenizer.pretrained={first}",
        f"--config.flow.pretrained={first}",
        "--config.data.source=npz",
        f"--config.data.path={folder / 'images.npz'}",
        "--config.data.num_classes=3",
    ]


@pytest.fixture(scope="module")
def second(other_data, folder):
    return train(folder / "second", *other_data)


def test_a_run_takes_tokenizer_and_network_of_another(first, second, other_data, folder):
    one, two = load_run(first), load_run(second)
    for part in ("encoder", "decoder", "statistics"):
        same(one.artifacts[part], two.artifacts[part])
    depends = json.loads((second / "stages" / "flow.json").read_text())["depends"]
    assert depends["config.tokenizer.pretrained fingerprint"] == fingerprint_of(first)
    assert depends["config.flow.pretrained fingerprint"] == fingerprint_of(first)
    assert drawn(second, folder / "second.npz").shape == (4, 16, 16, 1)
    train(second, *other_data)  # finished before


def test_embeddings_of_other_classes_are_drawn_and_the_rest_is_taken(first, second, other_data):
    """Two steps of training move weights little."""
    one, two = (load_run(run).artifacts["network"] for run in (first, second))
    tables = [tree["label"]["table"].shape[0] for tree in (one, two)]
    assert tables == [11, 4]
    kernels = [tree["blocks"]["layers"]["mlp"]["expand"]["kernel"] for tree in (one, two)]
    assert np.abs(kernels[0] - kernels[1]).max() < 0.01 < np.abs(kernels[0]).max()
    words = refusal(second.with_name("no"), *other_data, "--config.flow.steps=0")
    assert "was trained with config.data.num_classes=10, not 3" in words


def test_exported_files_come_back_to_the_bit(first, exported, folder):
    given = [
        f"--config.tokenizer.pretrained={exported['tokenizer']}",
        f"--config.flow.pretrained={exported['network']}",
    ]
    again = train(folder / "again", FROM, *given, "--config.flow.steps=0")
    np.testing.assert_array_equal(
        drawn(again, folder / "again.npz"), drawn(first, folder / "first.npz")
    )
    about = trained_as(exported["network"])
    assert about["config.space.path"] == "slerp" and about["config.data.num_classes"] == 10
    assert (
        about["config.model.width"] == 32 and len(about["weights of the tokenizer's encoder"]) == 16
    )


def test_a_network_that_nobody_publishes_is_written_by_our_names(
    first, folder, monkeypatch, capsys
):
    """As one of another package."""
    monkeypatch.setattr(generators, "PUBLISHED", {})
    file = folder / "ours.safetensors"
    convert.main([f"--from={first}", "--export", f"--out={file}"])
    assert "the network of stage 'flow', by our names" in capsys.readouterr().out
    given = [FROM, f"--config.tokenizer.pretrained={first}", f"--config.flow.pretrained={file}"]
    run = opened(folder / "no", *given)
    check_pretrained(run)
    same(initial_params(run, run.task("flow"))["network"], load_run(first).artifacts["network"])


def test_a_decoder_stage_starts_from_a_finetuned_decoder(first, exported, folder):
    given = ["--config.stages=decoder,", f"--config.tokenizer.pretrained={first}"]
    finetuned = load_run(first).artifacts["decoder"]
    for source in (first, exported["decoder"]):
        run = opened(folder / "no", *given, f"--config.decoder.pretrained={source}")
        check_pretrained(run)
        assert initial_params(run, run.task("decoder")).keys() == {"decoder"}
        same(initial_params(run, run.task("decoder"))["decoder"], finetuned)
    flags = [f"--config.decoder.pretrained={exported['network']}"]
    run = opened(folder / "no", *given, *flags)
    words = refusal_of(initial_params, run, run.task("decoder"))
    assert "was not written by sphere_jax.convert; convert it first" in words


def test_a_network_for_something_else_is_refused(first, exported, folder):
    frozen = [FROM, f"--config.tokenizer.pretrained={first}"]
    for source, other in ((first, "space.path=linear"), (exported["network"], "space.path=nlerp")):
        given = [*frozen, f"--config.flow.pretrained={source}"]
        words = refusal(folder / "no", *given, f"--config.{other}")
        assert f"was trained with config.space.path='slerp', not '{other[11:]}'" in words
        assert "config.flow.pretrained_anyway=True trains on from it" in words
    words = refusal(folder / "no", *given, "--config.model.heads=4")  # of the same shapes
    assert "was trained with config.model.heads=2, not 4" in words
    words = refusal(folder / "no", *given, "--config.model.parameterization=data_at_one",
                    "--config.flow.steps=0")  # fmt: skip
    assert "parameterization='noise_at_one', not 'data_at_one'" in words
    assert "anyway" not in words
    words = refusal(folder / "no", f"--config.flow.pretrained={source}")  # trains a new VAE
    assert "'trained by this run'" in words and "by config.tokenizer.pretrained" in words


def test_what_is_refused_may_be_forced(first, folder):
    given = [FROM, f"--config.tokenizer.pretrained={first}", f"--config.flow.pretrained={first}"]
    forced = [*given, "--config.space.path=linear", "--config.flow.pretrained_anyway=True"]
    run = opened(folder / "no", *forced)
    check_pretrained(run)
    same(initial_params(run, run.task("flow"))["network"], load_run(first).artifacts["network"])
    words = refusal(folder / "no", *forced, "--config.flow.steps=0")
    assert "pretrained_anyway trains on from" in words


def test_a_tokenizer_and_the_stage_that_trains_it_exclude_each_other(first, folder):
    words = refusal(folder / "no", f"--config.tokenizer.pretrained={first}")
    assert "gives the weights that config.vae trains: leave 'vae' out of config.stages" in words
    words = refusal(folder / "no", FROM)
    assert "or config.tokenizer.pretrained names a run that did" in words
    given = [FROM, f"--config.tokenizer.pretrained={first}"]
    words = refusal(folder / "no", *given, "--config.tokenizer.widths=4,")
    assert "was trained with config.tokenizer.widths=[8], not [4]" in words


def test_weights_of_another_path_do_not_replace_those_of_a_run(first, exported, folder):
    raw = stored_config(first) | {"space": {"path": "linear"}}
    run = load_run(first)
    override_weights(run, str(exported["network"]))
    assert run.override == fingerprint_of(exported["network"])
    run.config = read_config(raw, stored=True)
    words = refusal_of(override_weights, run, str(exported["network"]))
    assert "was trained with config.space.path='slerp', not 'linear'" in words


def test_a_run_folder_that_changed_is_noticed(first, second):
    [record] = (first / "checkpoints" / "flow.crc32").glob("*.json")
    content = record.read_text()
    before = fingerprint_of(first)
    record.write_text(content.replace("{", '{"params/more": 1, ', 1))
    try:
        assert fingerprint_of(first) != before
        assert "has other weights than those that stage 'flow'" in refusal_of(load_run, second)
    finally:
        record.write_text(content)


def test_a_cache_of_latents_of_a_tokenizer_that_a_run_trained(first, exported, folder):
    given = [FROM, f"--config.tokenizer.pretrained={exported['tokenizer']}"]
    prepare.main(["latents", *tiny_run.FLAGS, *given, f"--out={folder / 'cache'}"])
    made_with = json.loads((folder / "cache" / "index.json").read_text())["made_with"]
    weights = made_with["config.tokenizer.pretrained fingerprint"]
    assert weights == fingerprint_of(exported["tokenizer"])
    cached = [FROM, "--config.data.source=cache", f"--config.data.path={folder / 'cache'}"]
    run = train(folder / "cached", *cached, given[-1])
    assert drawn(run, folder / "cached.npz").shape == (4, 16, 16, 1)
    words = refusal(folder / "no", *cached, f"--config.tokenizer.pretrained={first}")
    assert "holds latents made with config.tokenizer.pretrained fingerprint=" in words
