"""Whole runs of Sphere Encoder and Sphere Latent Encoder on tiny models, and editing with them."""

import dataclasses
import io
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from PIL import Image
from refusals import refusal_of

from sphere_jax import convert, edit, evaluate, main, sample
from sphere_jax.common.errors import UserError
from sphere_jax.geometry import sphere
from sphere_jax.runs.drawing import Drawer
from sphere_jax.runs.loading import load_run
from sphere_jax.runs.network_files import load_tokenizer
from sphere_jax.runs.provenance import check_pretrained, initial_params
from sphere_jax.runs.system import build_tokenizer
from sphere_jax.studies import editing

CONFIGS = tiny_run.ROOT / "configs"
TINY_ENCODER = [
    f"--config={CONFIGS / 'mnist_sphere_encoder.py'}",
    "--config.data.source=digits",
    "--config.data.image_size=16",
    "--config.tokenizer.width=16",
    "--config.tokenizer.depth=1",
    "--config.tokenizer.heads=2",
    "--config.tokenizer.mixer_depth=1",
    "--config.tokenizer.patch=8",
    "--config.tokenizer.unroll=False",
    "--config.sphere_encoder.steps=40",
    "--config.sphere_encoder.optimizer.learning_rate=0.01",
    "--config.sphere_encoder.optimizer.warmup=1",
    "--config.sphere_encoder.batch_size=16",
    "--config.sphere_encoder.log_every=10",
    "--config.sphere_encoder.preview_every=40",
    "--config.sampler.steps=3",
    "--config.evaluation.samples=40",
    "--config.evaluation.at_steps=1,",
    "--config.evaluation.classifier_steps=20",
]
TINY_LATENT = [
    f"--config={CONFIGS / 'mnist_sphere_latent.py'}",
    *(flag for flag in tiny_run.FLAGS[1:] if ".flow." not in flag and ".decoder." not in flag),
    "--config.stages=vae,sphere_latent",
    "--config.sphere_latent.steps=8",
    "--config.sphere_latent.batch_size=16",
    "--config.sampler.steps=3",
    "--config.evaluation.at_steps=",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "encoder"
    main.main([*TINY_ENCODER, f"--workdir={workdir}"])
    return workdir


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four image files of other sizes and modes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    files = []
    for number, (size, mode) in enumerate([((16, 16), "L"), ((40, 24), "RGB"), ((9, 30), "L"),
                                           ((64, 64), "RGBA")]):  # fmt: skip
        shape = (*size, len(mode)) if mode != "L" else size
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)
        files.append(folder / f"{number}.png")
        picture.save(files[-1])
    return files


def results_of(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


def test_a_run_of_sphere_encoder(encoder):
    results = results_of(encoder)
    assert results["nfe"] == 10  # 3 decodes and 2 encodes, all guided
    (one,) = results["at_steps"]
    assert (one["steps"], one["nfe"]) == (1, 2) and one["metrics"].keys() == results[
        "metrics"
    ].keys()
    measured = results["stages"]["sphere_encoder"]
    assert measured["reconstruction_psnr"] > 0 and measured["sliced_wasserstein"] > 0
    drawer = Drawer(load_run(encoder), 0)
    path, drawn = drawer.path(np.arange(3), 9), drawer.draw(np.arange(3)).images
    assert list(path) == [1, 2, 3]  # decodes
    assert (
        np.abs(path[3].astype(int) - drawn).max() <= 1 < np.abs(path[1].astype(int) - drawn).max()
    )
    page = (encoder / "report.html").read_text()
    assert "Sphere Encoder on digits" in page and "<h2>Steps</h2>" in page
    assert "angle of noise" not in page  # it is in the picture
    assert page.count("data:image/png;base64,") >= 6 and "<h2>Sampling path</h2>" in page
    generation = results["protocol"]["generation"]
    assert generation["guidance_at"] == "combo" and generation["weights"] == "ema"


@pytest.mark.slow
def test_a_run_of_sphere_latent_encoder(tmp_path):
    main.main([*TINY_LATENT, f"--workdir={tmp_path / 'latent'}"])
    results = results_of(tmp_path / "latent")
    assert results["nfe"] == 6 and "at_steps" not in results
    assert results["stages"]["sphere_latent"]["sliced_wasserstein_uniform"] > 0
    drawer = Drawer(load_run(tmp_path / "latent"), 0)
    path, drawn = drawer.path(np.arange(3), 9), drawer.draw(np.arange(3)).images
    assert list(path) == list(range(1, drawer.method.sampler.steps + 1))
    assert np.abs(path[drawer.method.sampler.steps].astype(int) - drawn).max() <= 1
    sample.main([f"--workdir={tmp_path / 'latent'}", "--num=4", "--steps=2", "--guidance=1",
                 "--share_noise=False", f"--out={tmp_path / 'a.npz'}"])  # fmt: skip
    assert np.load(tmp_path / "a.npz")["images"].shape == (4, 16, 16, 1)
    with pytest.raises(UserError, match="editing needs a run of Sphere Encoder"):
        edit.main(
            ["interpolate", f"--workdir={tmp_path / 'latent'}", f"--out={tmp_path / 'b.png'}"]
        )


def test_its_stage_is_exported_and_starts_another_one(encoder, tmp_path):
    file = tmp_path / "stage.safetensors"
    convert.main([f"--from={encoder}", "--export=sphere_encoder", f"--out={file}"])
    given = [*TINY_ENCODER, "--config.sphere_encoder.steps=0"]
    trained = load_run(encoder).artifacts
    for source in (file, encoder):
        flags = [*given, f"--config.sphere_encoder.pretrained={source}"]
        run = tiny_run.unstarted(tmp_path / "again", *flags)
        check_pretrained(run)
        found = initial_params(run, run.task("sphere_encoder"))
        for half in ("encoder", "decoder"):
            jax.tree.map(np.testing.assert_array_equal, found[half], trained[half])
        run = tiny_run.unstarted(tmp_path / "again", *flags, "--config.tokenizer.heads=1")
        words = refusal_of(check_pretrained, run)
        assert "was trained with config.tokenizer.heads=2, not 1" in words


def test_it_is_exported_as_a_tokenizer(encoder, tmp_path):
    file = tmp_path / "tokenizer.safetensors"
    convert.main([f"--from={encoder}", "--export=tokenizer", f"--out={file}"])
    first = load_run(encoder)
    for source in (file, encoder):
        options = dataclasses.replace(first.config.tokenizer, pretrained=str(source))
        tokenizer = build_tokenizer(first.config.data, options)
        found = load_tokenizer(tokenizer, options)
        assert found.keys() == set(tokenizer.parts) == tokenizer.shapes().keys()
        for part, tree in found.items():
            jax.tree.map(np.testing.assert_array_equal, tree, first.artifacts[part])
    words = refusal_of(convert.main, [f"--from={encoder}", "--export=network", f"--out={file}"])
    assert "has tokenizer, decoder, sphere_encoder." in words


def test_sampling_from_the_command_line(encoder, tmp_path, capsys):
    flags = [f"--workdir={encoder}", "--num=12", "--seed=3"]
    out = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c.npz"
    sample.main([*flags, f"--out={out[0]}", "--guidance_at=decoder", "--schedule=decreasing"])
    assert "3 steps, guidance 1.2 at decoder, NFE 8 per image" in capsys.readouterr().out
    sample.main([*flags, f"--out={out[1]}", "--batch=5"])
    sample.main([*flags, f"--out={out[2]}"])
    first, b, c = (np.load(file)["images"].astype(int) for file in out)
    assert np.abs(b - c).max() <= 1 and np.abs(first - c).max() > 1


@pytest.mark.slow
def test_without_classes_there_is_no_class_agreement(tmp_path):
    """Samples of an unconditional generator have no labels."""
    unconditional = ["--config.tokenizer.conditional=False", "--config.sampler.guidance=1"]
    main.main([*TINY_ENCODER, *unconditional, f"--workdir={tmp_path}"])
    results = results_of(tmp_path)
    scores = results["metrics"], *(row["metrics"] for row in results["at_steps"])
    assert all(len(s) == 5 and "class_agreement" not in s for s in scores)
    assert "Class agreement" not in (tmp_path / "report.html").read_text()


def test_options_of_another_sampler_are_refused(encoder, tmp_path):
    with pytest.raises(UserError, match="config.sampler has no 'solver'"):
        sample.main([f"--workdir={encoder}", "--solver=heun", f"--out={tmp_path / 'a.png'}"])


def test_evaluate_a_run(encoder, capsys):
    evaluate.main([f"--workdir={encoder}", "--num=30", "--steps=1", "--guidance=1"])
    assert "Class agreement" in capsys.readouterr().out


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("action", "flags", "count"),
    [
        ("reconstruct", (), 4),
        slow("interpolate", ("--columns=5",), 2),
        slow("interpolate", ("--columns=3", "--path=slerp", "--labels=1,7"), 0),
        slow("interpolate", ("--columns=3",), 4),
        slow("crossover", ("--stitch=diagonal", "--swap", "--steps=2"), 2),
        ("manipulate", ("--labels=2,5", "--steps=2", "--guidance=1.5"), 3),
    ],
)
def test_every_edit_makes_a_picture(encoder, pictures, tmp_path, capsys, action, flags, count):
    files = ["--images", *map(str, pictures[:count])] if count else []
    out = tmp_path / "edit.png"
    edit.main([action, f"--workdir={encoder}", *flags, *files, f"--out={out}"])
    picture = np.asarray(Image.open(out))
    assert picture[..., :3].std() > 0 and str(out) in capsys.readouterr().out


@pytest.mark.slow
def test_a_direction_changes_the_edit(encoder, pictures, tmp_path):
    flags = ["manipulate", f"--workdir={encoder}", "--labels=4", "--images", str(pictures[0])]
    plain, turned = tmp_path / "plain.png", tmp_path / "turned.png"
    edit.main([*flags, f"--out={plain}"])
    edit.main([*flags, f"--out={turned}", f"--direction={pictures[1]}", "--strength=1.0"])
    assert np.any(np.asarray(Image.open(plain)) != np.asarray(Image.open(turned)))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["crossover"], "--images is missing"),
        (["manipulate", "--images", "0"], "--labels is missing"),
        (["interpolate", "--images", "0"], "between 2 or 4 images, not 1"),
        (["interpolate", "--labels=1,2,3"], "interpolate needs 2 labels"),
        (["interpolate", "--labels=99"], "must be 0..9, or 10 for no class"),
        (["interpolate", "--columns=1"], "a whole number, 2 to 100"),
        (["interpolate", "--stitch=diagonal"], "config.sampler has no 'stitch'"),
        (["reconstruct", "--images", "0", "--strength=1"], "reconstruct takes no --strength"),
        (["crossover", "--images", "0", "--share_noise=True"], "shows every --share_noise"),
        (["reconstruct", "--images", "nowhere.png"], "There is no image 'nowhere.png'"),
    ],
)
def test_impossible_edits_are_refused(encoder, pictures, tmp_path, flags, sentence):
    flags = [str(pictures[0]) if flag == "0" else flag for flag in flags]
    with pytest.raises(UserError, match=sentence):
        edit.main([*flags[:1], f"--workdir={encoder}", *flags[1:], f"--out={tmp_path / 'e.png'}"])
    assert not (tmp_path / "e.png").exists()


def test_points_between():
    rng = np.random.default_rng(0)
    ends = np.asarray(sphere.spherify(rng.normal(size=(4, 2, 2, 8)).astype(np.float32)))
    for path in editing.PATHS:
        points = editing.between(ends[0], ends[1], 9, path)
        np.testing.assert_allclose(np.mean(points**2, axis=(1, 2, 3)), 1.0, rtol=1e-5)
    chord = editing.between(ends[0], ends[1], 9, "lerp")
    np.testing.assert_allclose(chord[[0, -1]], ends[:2], atol=1e-5)
    turned = editing.between(ends[0], ends[1], 9, "slerp")
    norms = np.linalg.norm(turned, axis=-1)
    np.testing.assert_allclose(norms, np.sqrt(8), rtol=1e-4)  # every token, as the released code
    square = editing.among(ends, 5).reshape(5, 5, 2, 2, 8)
    corners = square[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, ends, atol=1e-5)
    middle = sphere.spherify(ends.mean(0, keepdims=True))[0]
    np.testing.assert_allclose(square[2, 2], middle, atol=1e-5)
    with pytest.raises(ValueError, match="path is one of"):
        editing.between(ends[0], ends[1], 3, "arc")


def test_stitches():
    a, b = np.zeros((4, 4, 1), np.uint8), np.full((4, 4, 1), 9, np.uint8)
    assert (editing.stitch(a, b, "vertical")[..., 0] == [0, 0, 9, 9]).all()
    assert (editing.stitch(a, b, "horizontal")[..., 0].T == [0, 0, 9, 9]).all()
    diagonal = editing.stitch(a, b, "diagonal")[..., 0]
    np.testing.assert_array_equal(diagonal, 9 * (1 - np.triu(np.ones((4, 4), np.uint8))))
    for mode in editing.STITCHES:
        one, other = (editing.stitch(a, b, mode, swap) for swap in (False, True))
        np.testing.assert_array_equal(one == 0, other == 9)
    with pytest.raises(ValueError, match="mode is one of"):
        editing.stitch(a, b, "spiral")


def some_of_cifar10(folder):
    """2,500 of the real images. All are read by tests/data/test_cifar10.py."""
    packed = tiny_run.ROOT.parent / "shared" / "data" / "cifar10_jpeg.npz"
    if not packed.is_file():
        pytest.skip(f"needs the real images: {packed.name} is not beside the project")
    with np.load(packed) as stored:
        ends, content = stored["test_offsets"][:2501], stored["test_jpeg_bytes"].tobytes()
        labels = stored["test_labels"][:2500]
    files = (io.BytesIO(content[start:end]) for start, end in itertools.pairwise(ends))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    np.savez(folder / "some.npz", images=images, labels=labels)
    return folder / "some.npz"


@pytest.mark.slow
def test_cifar10_trains(tmp_path):
    """The published config on real images, 50 steps, with networks that two cores can train."""
    data, workdir = some_of_cifar10(tmp_path), tmp_path / "cifar10"
    main.main([
        f"--config={CONFIGS / 'cifar10_sphere_encoder.py'}", f"--workdir={workdir}",
        "--config.data.source=npz", f"--config.data.path={data}",
        "--config.tokenizer.size=", "--config.tokenizer.width=64",
        "--config.tokenizer.depth=2", "--config.tokenizer.heads=2", "--config.tokenizer.patch=4",
        "--config.tokenizer.latent_channels=32", "--config.tokenizer.compute_dtype=float32",
        "--config.sphere_encoder.steps=50", "--config.sphere_encoder.batch_size=16",
        "--config.sphere_encoder.optimizer.learning_rate=0.001",
        "--config.sphere_encoder.optimizer.warmup=10", "--config.sphere_encoder.optimizer.hold=10",
        "--config.sphere_encoder.preview_every=50", "--config.sphere_encoder.log_every=10",
        "--config.evaluation.samples=0",
    ])  # fmt: skip
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [row["reconstruction"] for row in rows if "reconstruction" in row]
    assert losses[-1] < 0.025  # half the mean square in [0, 1]; grey images have 0.03
    assert (workdir / "samples" / "sphere_encoder_000050.png").exists()
    measured = json.loads((workdir / "stages" / "sphere_encoder.json").read_text())["metrics"]
    assert measured["reconstruction_psnr"] > 13.5
