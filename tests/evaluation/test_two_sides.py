"""Any two sides against each other: what they may be, how they are read, and what is said."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny_run
from PIL import Image
from refusals import refusal_of

from sphere_jax import evaluate as command
from sphere_jax import prepare
from sphere_jax.data.record_files import whole_records
from sphere_jax.data.tf_examples import write_example
from sphere_jax.evaluation import evaluate
from sphere_jax.evaluation.reconstructions import evaluate_pairs, lines
from sphere_jax.evaluation.sides.array_side import rounded
from sphere_jax.evaluation.stamp import differences

RNG = np.random.default_rng(0)
A = RNG.integers(0, 256, (70, 16, 16, 3), np.uint8)
B = RNG.integers(0, 200, (90, 16, 16, 3), np.uint8)
METRIC = "frechet_distance:network=other_lab.colours"
KEY = "frechet_distance_colours"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "colours.bin"
    file.write_text("0" * 16)
    return file


@pytest.fixture
def score(weights):
    def scored(samples, reference=B, **options):
        return evaluate(samples, reference, (METRIC,), weights=weights, **options)

    return scored


@pytest.fixture(scope="module")
def expected():
    """By numpy alone, in float64."""
    moments = []
    for images in (A, B):
        x = images.astype(np.float64)
        rows = np.concatenate([x.mean((1, 2)), x.std((1, 2))], -1)
        moments.append((rows.mean(0), np.cov(rows, rowvar=False)))
    (mu, sigma), (nu, tau) = moments
    root = np.sqrt(np.linalg.eigvals(sigma @ tau).real.clip(0)).sum()
    return np.sum((mu - nu) ** 2) + np.trace(sigma) + np.trace(tau) - 2 * root


def write_folder(folder, images, classes=0, suffix="png"):
    for number, image in enumerate(images):
        place = folder / f"class {number % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03}.{suffix}")
    return folder


def write_records(folder, images):
    folder.mkdir()
    with whole_records(folder / "train-0.array_record") as add:
        for image in images:
            file = folder / "image.png"
            Image.fromarray(image).save(file)
            add([write_example({"image": file.read_bytes()})])
    return folder


def sides(tmp_path):
    """The same images in every form."""
    np.savez(tmp_path / "ours.npz", images=A, labels=np.arange(70))
    np.savez(tmp_path / "adm.npz", A, np.arange(70))
    np.savez_compressed(tmp_path / "small.npz", images=A)
    yield from (A, list(A), iter(A), (A[i : i + 9] for i in range(0, 70, 9)))
    yield (Image.fromarray(image) for image in A)
    yield from (tmp_path / f"{name}.npz" for name in ("ours", "adm", "small"))
    yield write_folder(tmp_path / "flat", A, suffix="bmp")
    yield write_folder(tmp_path / "nested" / "deep", A, classes=3).parent
    yield write_records(tmp_path / "records", A)


def test_every_form_of_the_same_images_gives_the_same(tmp_path, score, expected):
    found = [score(side) for side in sides(tmp_path)]
    for each in found:
        assert each["metrics"][KEY] == pytest.approx(expected, rel=1e-5)
        assert each["metrics"][KEY] == pytest.approx(found[0]["metrics"][KEY], rel=1e-9)
        stamp = each["protocol"]["samples"]
        assert (stamp["images"], stamp["sizes"], stamp["resized"]) == (70, "16x16", 0)
        assert stamp["fingerprint"] == found[0]["protocol"]["samples"]["fingerprint"]
        assert differences(each["protocol"], found[0]["protocol"]) == [] or stamp["classes"]
    assert found[8]["protocol"]["samples"]["classes"] is None
    assert found[9]["protocol"]["samples"]["classes"]["classes"] == 3


def test_a_compressed_file_too_large_for_memory_is_read_in_order(tmp_path, score, monkeypatch):
    from sphere_jax.evaluation.sides import array_side

    np.savez_compressed(tmp_path / "small.npz", images=A)
    whole = score(tmp_path / "small.npz")
    monkeypatch.setattr(array_side, "IN_MEMORY", A.nbytes)  # and a header
    found = score(tmp_path / "small.npz")
    assert found["metrics"] == whole["metrics"]
    assert found["protocol"]["samples"] == whole["protocol"]["samples"]


def test_batches_and_order_change_nothing(score):
    found = [score(A, batch_size=size)["metrics"][KEY] for size in (1, 7, 64, 200)]
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
    assert score(A[::-1])["metrics"][KEY] == pytest.approx(found[0], rel=1e-6)


def test_stored_statistics(tmp_path, score, weights):
    from sphere_jax.evaluation.api import store_statistics

    file = tmp_path / "reference.npz"
    store_statistics(B, file, ("other_lab.colours",), weights=weights)
    found, direct = score(A, file), score(A)
    assert found["metrics"][KEY] == pytest.approx(direct["metrics"][KEY], rel=1e-12)
    stamp = found["protocol"]["reference"]
    assert stamp["statistics"]["images"] == 90 and stamp["statistics"]["made"]["networks"]
    large = score(B.repeat(2, 1).repeat(2, 2), file)  # brought to the size that is stored
    assert large["protocol"]["samples"]["resized"] == 90
    other = tmp_path / "other.bin"
    other.write_text("1" * 16)
    sentence = refusal_of(evaluate, A, file, (METRIC,), weights=other)
    assert f"weights {'0' * 16}, and those given are {'1' * 16}; use the same" in sentence


def test_pytorch_fids_and_adms_statistics_are_of_inception(tmp_path):
    from sphere_jax.evaluation.sides.open_side import open_side

    moments = {"mu": np.zeros(4), "sigma": np.eye(4)}
    for labels in (np.asarray(1), np.array([["a"]])):
        np.savez(tmp_path / "odd.npz", images=A, labels=labels)
        assert "integer labels" in refusal_of(open_side, tmp_path / "odd.npz")
    np.savez(tmp_path / "odd.npz", images=np.asarray(3))
    assert "must be uint8 images" in refusal_of(open_side, tmp_path / "odd.npz")
    np.savez(tmp_path / "fid.npz", **moments)
    side = open_side(tmp_path / "fid.npz")
    assert ("inception_fid", "features") in side.stored and side.images is None
    spatial = {f"{name}_s": array for name, array in moments.items()}
    np.savez(tmp_path / "adm.npz", arr_0=A, **moments, **spatial)
    side = open_side(tmp_path / "adm.npz")
    assert len(side.images) == 70 and ("inception_fid", "spatial") in side.stored
    assert side.stored["inception_fid", "features"].n is None
    np.savez(tmp_path / "bad.npz", mu=np.zeros(4), sigma=np.eye(3))
    assert "must have shapes (F,) and (F, F)" in refusal_of(open_side, tmp_path / "bad.npz")


def test_images_of_other_sizes_are_resized_as_named_and_said(tmp_path, score):
    large = A.repeat(2, 1).repeat(2, 2)
    found = score(large, resize="box")
    assert found["metrics"][KEY] == pytest.approx(score(A)["metrics"][KEY], rel=1e-6)
    assert found["protocol"]["samples"]["resized"] == 70
    said = "samples: 70 images were brought to 16x16 (box, shorter side, then the middle)."
    assert said in found["remarks"]
    folder = write_folder(tmp_path / "mixed", [*A, large[0]])
    stamp = score(folder)["protocol"]["samples"]
    assert stamp["sizes"] == {"16x16": 70, "32x32": 1} and stamp["resized"] == 1
    own = score(B, folder)  # the reference has no one size
    assert own["protocol"]["size"] == "of each image"
    assert f"{folder}: images have 2 sizes, and each went to the networks in its own" in (
        " ".join(own["remarks"])
    )
    assert score(large, size=8)["protocol"]["size"] == [8, 8]


def test_pictures_as_people_have_them(tmp_path, score):
    """Grey, transparent and palette images are RGB; what cannot be used is named."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(A[0]).convert("L").save(folder / "grey.png")
    Image.fromarray(A[1]).convert("RGBA").save(folder / "alpha.webp", lossless=True)
    Image.fromarray(A[2]).convert("P").save(folder / "palette.gif")
    Image.fromarray(A[3]).save(folder / "odd.qoi" if ".qoi" in Image.SAVE else folder / "odd.tga")
    (folder / "notes.txt").write_text("none")
    assert score(folder)["protocol"]["samples"]["images"] == 4
    Image.fromarray(A[4].astype(np.uint16)[..., 0] * 257).save(folder / "deep.png")
    assert "more than 8 bits a channel" in refusal_of(score, folder)
    (folder / "cut.png").write_bytes((folder / "grey.png").read_bytes()[:60])
    (folder / "empty.jpg").write_bytes(b"")
    assert "--skip_bad leaves such images out" in refusal_of(score, folder)
    found = score(folder, skip_bad=True)
    assert found["protocol"]["samples"]["left_out"] == 3
    (said,) = (remark for remark in found["remarks"] if "left out" in remark)
    assert "3 images are left out" in said and "cut.png" in said and "deep.png" in said


def test_what_looks_wrong_is_said(score):
    assert "samples: all images are the same." in score(A[:1].repeat(5, 0))["remarks"]
    assert "samples: 2 images are exact copies of others." in score(A[[0, 1, 2, 0, 1]])["remarks"]
    few = " ".join(score(A)["remarks"])
    assert "Only 70 samples" in few and "Only 90 reference images" in few
    assert "covariance is singular" in " ".join(score(A[:4])["remarks"])
    assert "are all black" in refusal_of(score, 0 * A)
    assert "save numpy.round" in refusal_of(score, A / 255)
    assert "holds 1 images, and 2 are the fewest" in refusal_of(score, A[:1])
    assert "holds 0 images" in refusal_of(score, iter(()))


@pytest.mark.parametrize("how", ["nearest", "truncated", "floor"])
def test_floats_are_rounded_as_named(score, how):
    x = np.linspace(-1, 1, 70 * 16 * 16 * 3, dtype=np.float32).reshape(A.shape)
    found = score(x, rounding=how)
    assert found["protocol"]["rounding_of_floats"] == how
    assert found["metrics"] == score(rounded(x, how))["metrics"]
    assert "must be uint8" in refusal_of(score, x)


def test_three_ways_to_round():
    x = np.array([-1.2, -1, -0.001, 0, 0.001, 0.9999, 1], np.float32)
    assert rounded(x, "nearest").tolist() == [0, 0, 127, 128, 128, 255, 255]
    assert rounded(x, "truncated").tolist() == [0, 0, 127, 128, 128, 255, 255]
    assert rounded(x, "floor").tolist() == [0, 0, 127, 127, 127, 254, 255]


def test_what_is_no_side(tmp_path, score):
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refusal_of(score, tmp_path / "empty")
    assert "no reference of this name; did you mean" in refusal_of(score, A, "imagenet265_adm")
    sentence = refusal_of(score, A, "imagenet256_adm")
    assert "give --fetch, or download https://openaipublic" in sentence
    (tmp_path / "a.txt").write_text("x")
    assert "not one of a folder, an .npz" in refusal_of(score, tmp_path / "a.txt")
    np.savez(tmp_path / "b.npz", noise=A)
    assert "neither images" in refusal_of(score, tmp_path / "b.npz")
    assert "needs a reference" in refusal_of(score, A, None)
    assert "No metrics are named" in refusal_of(evaluate, A, B)


def test_the_command_and_its_comparison(tmp_path, weights, capsys):
    write_folder(tmp_path / "a", A, classes=5)
    np.savez(tmp_path / "b.npz", images=B)
    common = [f"--reference={tmp_path / 'b.npz'}", f"--metrics={METRIC}", f"--pretrained={weights}"]
    one, two = (tmp_path / f"{name}.json" for name in "12")
    command.main([f"--samples={tmp_path / 'a'}", f"--out={one}", *common])
    out = capsys.readouterr().out
    assert KEY in out and "lower is better; 70 samples, 90 reference images" in out
    np.savez(tmp_path / "c.npz", images=A[::-1] // 2, labels=np.arange(70) % 5)
    command.main([f"--samples={tmp_path / 'c.npz'}", f"--against={one}", f"--out={two}", *common])
    assert "there" in capsys.readouterr().out and json.loads(two.read_text())["metrics"][KEY] > 0
    fewer = [f"--samples={tmp_path / 'b.npz'}", f"--against={one}", *common]
    assert "cannot be compared with those of" in refusal_of(command.main, fewer)
    assert "samples.images: 90 here, 70 there" in capsys.readouterr().out


def test_pairs_are_compared_as_two_sets_too(weights, score):
    found = evaluate_pairs(A, B[:70], ("psnr", f"r{METRIC}"), weights=weights)
    alone = score(A, B[:70])
    assert found["metrics"][f"r{KEY}"] == pytest.approx(alone["metrics"][KEY])
    assert found["metrics"]["psnr"] > 0 and found["protocol"]["networks"]
    assert any("lower is better; 70 pairs" in line for line in lines(found))


def test_a_reference_is_prepared_once_from_images_or_a_config(tmp_path, weights, capsys):
    np.savez(tmp_path / "b.npz", images=B)
    common = ["--features=other_lab.colours", f"--pretrained={weights}"]
    stored = tmp_path / "stored.npz"
    prepare.main(["statistics", f"--images={tmp_path / 'b.npz'}", f"--out={stored}", *common])
    assert "90 images, other_lab.colours: features" in capsys.readouterr().out
    found = evaluate(A, stored, (METRIC,), weights=weights)["metrics"][KEY]
    assert found == pytest.approx(evaluate(A, B, (METRIC,), weights=weights)["metrics"][KEY])
    digits = ["--config=mnist_slerp", "--config.data.source=digits", "--config.data.image_size=8"]
    prepare.main(["statistics", *digits, "--split=heldout", f"--out={stored}", *common])
    assert "355 images, other_lab.colours: features" in capsys.readouterr().out
    both = [f"--images={tmp_path / 'b.npz'}", *digits, f"--out={stored}", *common]
    assert "Give --images, or --config" in refusal_of(prepare.main, ["statistics", *both])


def test_what_differs_between_protocols():
    one = {
        "samples": {"name": "a", "images": 5, "classes": None},
        "networks": {"n": {"fingerprint": "0"}},
        "measures": [{"measure": "kid", "settings": {"subsets": 3}}],
        "versions": {"jax": "1"},
    }
    other = json.loads(json.dumps(one))
    other["samples"]["name"], other["versions"]["jax"] = "b", "2"
    assert differences(one, other) == []
    other["networks"]["n"]["fingerprint"] = "1"
    other["measures"][0]["settings"]["subsets"] = 4
    assert differences(one, other) == [
        "measures.kid.settings.subsets: 3 here, 4 there",
        "networks.n.fingerprint: 0 here, 1 there",
    ]
    del other["networks"]
    assert "networks.n.fingerprint: 0 here, not given there" in differences(one, other)


def test_labels_are_those_of_the_images(score):
    classes = score(A, labels=np.arange(70) % 4)["protocol"]["samples"]["classes"]
    assert classes == {"classes": 4, "fewest": 17, "most": 18}
    assert "69 labels and more images" in refusal_of(score, A, labels=np.zeros(69, int))


MANY = """
import jax
import jax.numpy as jnp
import numpy as np

from sphere_jax.evaluation.engine import Wanted, collect
from sphere_jax.evaluation.features.base import FIRST, Features
from sphere_jax.evaluation.fitting import Fitting
from sphere_jax.evaluation.sides.base import Pictures, Side

PROJECTION = jax.random.normal(jax.random.key(0), (192, 2048))


class Wide(Features):
    name, fingerprint = "wide", "0"

    def batch(self, images, names=(FIRST,), sharding=None):
        x = images[:, ::16, ::16].astype(jnp.float32).reshape(len(images), -1)
        return {FIRST: x @ PROJECTION}


class Made(Pictures):
    def __len__(self):
        return 50_000

    def read(self, row):
        return np.random.default_rng(row).integers(0, 256, (128, 128, 3), np.uint8)


side = Side("made", "made", Made())
found = collect(side, [Wanted(Wide(), FIRST, True)], Fitting())
assert found.rows["wide", FIRST].shape == (50_000, 2048)
assert found.statistics["wide", FIRST].n == 50_000
(peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1e6)
"""


@pytest.mark.slow
def test_memory_of_fifty_thousand_images():
    """2.5 GB of pixels, and rows of 0.4 GB that a measure needs. Seen: 1.4 GB in all."""
    process = subprocess.run(
        [sys.executable, "-c", MANY], cwd=tiny_run.ROOT, env=tiny_run.environment(),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(process.stdout.splitlines()[-1]) < 3
