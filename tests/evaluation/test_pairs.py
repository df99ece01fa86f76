"""Pairs by name, their metrics for any mixture of sizes, and parity with published packages."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of

from sphere_jax import evaluate as command
from sphere_jax.common.errors import UserError
from sphere_jax.evaluation.pairing import pair_up
from sphere_jax.evaluation.pairs import METRICS, ArrayImages, compare_pairs
from sphere_jax.evaluation.reconstruction import ms_ssim, psnr, ssim
from sphere_jax.evaluation.reconstructions import evaluate_pairs
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.stored import write_weights


class Named:
    """Images of several sizes with names."""

    def __init__(self, images):
        self.names, self.images = list(images), list(images.values())

    def __len__(self):
        return len(self.names)

    def read(self, row):
        return self.images[row]


def smooth(count, height, width, channels=3, seed=0):
    """Waves, and their noisy and darker copies, uint8 (N, H, W, C)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    wave = np.sin(rows / 9)[None, :, :, None] * np.cos(columns / 7)[None, :, :, None]
    images = 128 + 90 * wave * rng.uniform(0.3, 1, (count, 1, 1, channels))
    noise = rng.normal(0, 1, images.shape) * rng.uniform(2, 40, (count, 1, 1, 1))
    found = (images + rng.normal(0, 3, images.shape), 0.9 * images + noise)
    return tuple(np.clip(x, 0, 255).astype(np.uint8) for x in found)


def test_pairs_are_matched_by_name_whatever_the_order_and_ending(capsys):
    found = pair_up(["b/2.png", "a/1.png", "new.png"], ["a/1.jpg", "b/2.JPEG", "x.y.png"])
    assert found.names == ["a/1", "b/2"]
    assert found.samples.tolist() == [1, 0] and found.reference.tolist() == [0, 1]
    assert found.alone == {"samples": 1, "reference": 1}
    said = capsys.readouterr().out
    assert "1 of 3 images of the samples have no partner and are left out: new\n" in said
    assert "of the reference have no partner and are left out: x.y\n" in said
    flat = pair_up(["1.png", "2.png"], ["a/2.jpg", "a/1.jpg"])
    assert flat.reference.tolist() == [1, 0]
    assert pair_up(2, ["a", "b"]).reference.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("samples", "reference", "sentence"),
    [
        (["a.png"], ["b.png"], "No image of S (a.png, ...) has the name of one of R (b.png, ...)"),
        (["a.png", "a.jpg"], ["a.png"], "S holds more than one image named 'a'"),
        (["a.png", "b.png"], 3, "S holds 2 images and R 3, and one of them has no names"),
    ],
)
def test_pairs_that_are_not_clear_are_refused(samples, reference, sentence):
    assert sentence in refusal_of(pair_up, samples, reference, ("S", "R"))


def test_mixed_sizes_give_each_pair_its_own_value():
    sides = ({}, {})
    for number in range(70):  # more than a batch of the first size
        size = (16, 14) if number % 7 else (11, 20)
        for side, image in zip(sides, smooth(1, *size, seed=number), strict=True):
            side[f"{number:02d}.png"] = image[0]
    reference, samples = sides
    backwards = Named(dict(reversed(samples.items())))
    pairing = pair_up(backwards.names, list(reference))
    found = compare_pairs(backwards, Named(reference), pairing, ("psnr", "ssim"))
    for place, name in enumerate(pairing.names):
        pair = reference[f"{name}.png"][None], samples[f"{name}.png"][None]
        np.testing.assert_allclose(found.values["psnr"][place], psnr(*pair)[0], rtol=1e-6)
        np.testing.assert_allclose(found.values["ssim"][place], ssim(*pair)[0], rtol=1e-5)
    assert found.means["psnr"] == pytest.approx(found.values["psnr"].mean(), rel=1e-6)
    assert found.errors["ssim"] == pytest.approx(found.values["ssim"].std(ddof=1) / 70**0.5)
    assert found.networks == {}


@pytest.mark.parametrize(
    ("change", "metrics", "sentence"),
    [
        (lambda x: x[:, :12], ("psnr",), "Pair 0 has a reference of 12x16 pixels in RGB and a"),
        (lambda x: x, ("psnr", "ms_ssim"), "ms_ssim needs sides of at least 161 pixels; leave it"),
        (lambda x: x, ("lpips_alex",), "lpips_alex needs weights, which python -m sphere_jax.conv"),
        (lambda x: x, ("pnsr",), "'pnsr' is no metric of pairs; did you mean 'psnr'?"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, metrics, sentence):
    x, y = smooth(2, 16, 16)
    pairing = pair_up(2, 2)
    words = refusal_of(compare_pairs, ArrayImages(y), ArrayImages(change(x)), pairing, metrics)
    assert sentence in words


def test_ssim_with_a_reflected_border_is_that_of_the_mirrored_image():
    x, y = smooth(2, 12, 15)
    wide = [np.pad(side, ((0, 0), (5, 5), (5, 5), (0, 0)), mode="reflect") for side in (x, y)]
    np.testing.assert_allclose(ssim(x, y, border="reflected"), ssim(*wide), rtol=1e-6)
    assert np.abs(ssim(x, y, border="reflected") - ssim(x, y)).max() > 1e-3


def test_ms_ssim_falls_with_noise_and_is_one_of_equal_images():
    x, y = smooth(3, 161, 170, channels=1)
    for border in ("valid", "reflected"):
        same, found = ms_ssim(x, x, border=border), ms_ssim(x, y, border=border)
        np.testing.assert_allclose(same, 1, atol=1e-5)
        noise = np.abs(x.astype(float) - y).mean((1, 2, 3))
        assert (np.argsort(-np.asarray(found)) == np.argsort(noise)).all()
    with pytest.raises(ValueError, match="MS-SSIM needs sides of at least 161 pixels"):
        ms_ssim(x[:, :160], y[:, :160])


def write_lpips(file, kind, rng):
    """Random weights of the published architecture, as `sphere_jax.convert` writes them."""
    network = catalogue()[kind].network()
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda s: 0.05 * rng.standard_normal(s.shape).astype("f4"), shapes)
    params["heads"] = jax.tree.map(abs, params["heads"])
    write_weights(file, params, kind, "random")


def test_lpips_of_any_kind_is_named_with_its_weights(tmp_path):
    write_lpips(tmp_path / "alex.safetensors", "lpips_alexnet", np.random.default_rng(0))
    x, y = smooth(3, 33, 40, channels=1)
    weights = {"lpips_alex": tmp_path / "alex.safetensors"}
    found = compare_pairs(ArrayImages(y), ArrayImages(x), pair_up(3, 3), ("lpips_alex",), weights)
    assert (found.values["lpips_alex"] > 0).all()
    assert found.networks["lpips_alex"].startswith("lpips_alexnet, weights ")
    with pytest.raises(UserError, match="it holds 'lpips_alexnet'"):
        given = {"lpips_vgg": tmp_path / "alex.safetensors"}
        compare_pairs(ArrayImages(y), ArrayImages(x), pair_up(3, 3), ("lpips_vgg",), given)


@pytest.mark.parity
@pytest.mark.parametrize("size", [(177, 180), (200, 183)])
def test_parity_of_pixels_with_torchmetrics_and_pytorch_msssim(size):
    from torchvision_shim import importorskip

    torch, torchmetrics = pytest.importorskip("torch"), importorskip("torchmetrics.image")
    published = pytest.importorskip("pytorch_msssim")
    x, y = smooth(4, *size)
    found = compare_pairs(ArrayImages(y), ArrayImages(x), pair_up(4, 4), METRICS[:5]).values
    a, b = (torch.from_numpy(side.transpose(0, 3, 1, 2).astype(np.float32)) for side in (x, y))
    options = {"data_range": 255.0, "reduction": None}
    expected = {
        "psnr": torchmetrics.PeakSignalNoiseRatio(**options, dim=(1, 2, 3))(b, a),
        "ssim": published.ssim(a, b, size_average=False),
        "ssim_reflected": torchmetrics.StructuralSimilarityIndexMeasure(**options)(b, a),
        "ms_ssim": published.ms_ssim(a, b, size_average=False),
        "ms_ssim_reflected": torchmetrics.MultiScaleStructuralSimilarityIndexMeasure(**options)(
            b, a
        ),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-4, err_msg=name)


@pytest.mark.parity
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_parity_of_lpips_with_its_package(net, tmp_path):
    """With the published heads on random trunks."""
    from torchvision_shim import importorskip

    torch, lpips = pytest.importorskip("torch"), importorskip("lpips")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    save_file({k: v.clone() for k, v in model.state_dict().items()}, tmp_path / "w.safetensors")
    x, y = smooth(3, 64, 72)
    name = f"lpips_{net}"
    found = compare_pairs(
        ArrayImages(y), ArrayImages(x), pair_up(3, 3), (name,), {name: tmp_path / "w.safetensors"}
    )
    a, b = (torch.from_numpy(v.transpose(0, 3, 1, 2).astype("f4")) / 127.5 - 1 for v in (x, y))
    with torch.no_grad():
        expected = model(a, b).flatten().numpy()
    np.testing.assert_allclose(found.values[name], expected, rtol=1e-4)


def folders(tmp_path, count=5, side=20):
    """Originals in class folders as PNG, and reconstructions in one folder, one of them new."""
    originals, copies = smooth(count, side, side)
    for name in ("originals/a", "originals/b", "made"):
        (tmp_path / name).mkdir(parents=True)
    for number, (x, y) in enumerate(zip(originals, copies, strict=True)):
        Image.fromarray(x).save(tmp_path / f"originals/{'ab'[number % 2]}/{number}.png")
        Image.fromarray(y).save(tmp_path / f"made/{number}.bmp")
    Image.fromarray(y).save(tmp_path / "made/new.png")
    return originals, copies


def test_two_folders_are_compared_by_the_command(tmp_path, capsys):
    originals, copies = folders(tmp_path)
    out = tmp_path / "scores.json"
    flags = [f"--samples={tmp_path / 'made'}", f"--reference={tmp_path / 'originals'}", "--pairs"]
    command.main([*flags, "--metrics=psnr,ssim_reflected", f"--out={out}"])
    found = json.loads(out.read_text())
    assert found["metrics"]["psnr"] == pytest.approx(float(psnr(originals, copies).mean()))
    expected = ssim(originals, copies, border="reflected")
    assert found["metrics"]["ssim_reflected"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert found["standard_errors"]["ssim_reflected"] == pytest.approx(
        float(np.std(expected, ddof=1) / 5**0.5), rel=1e-3
    )
    pairs = found["protocol"]["pairs"]
    assert pairs == {"count": 5, "matched": "by name", "left_out": {"samples": 1, "reference": 0}}
    said = capsys.readouterr().out
    assert "have no partner and are left out: new" in said
    assert "higher is better; 5 pairs" in said
    again = [*flags, "--metrics=psnr,ssim_reflected", f"--against={out}"]
    command.main(again)
    assert "+0.0000" in capsys.readouterr().out


def test_an_array_is_paired_by_order_and_brought_to_size(tmp_path):
    originals, copies = smooth(4, 24, 24)
    np.savez_compressed(tmp_path / "made.npz", images=copies)  # read as a stream
    found = evaluate_pairs(tmp_path / "made.npz", originals, ("psnr",), size=12, resize="box")
    small = [
        np.stack([np.asarray(Image.fromarray(x).resize((12, 12), Image.Resampling.BOX)) for x in s])
        for s in (originals, copies)
    ]
    assert found["metrics"]["psnr"] == pytest.approx(float(psnr(*small).mean()), rel=1e-6)
    assert found["protocol"]["pairs"]["matched"] == "by order"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--metrics=fid"], "'fid' is no metric of pairs; did you mean 'rfid'?"),
        (["--metrics=rfid"], "The weights of inception_fid are missing; give their file"),
        (["--metrics=ms_ssim"], "and ms_ssim needs sides of at least 161 pixels"),
        (["--num=4"], "--num draws samples of a run"),
        (["--skip_bad"], "--skip_bad has no meaning for --pairs"),
    ],
)
def test_a_command_that_cannot_be_is_one_sentence(tmp_path, flags, sentence, monkeypatch):
    monkeypatch.setenv("SPHERE_JAX_WEIGHTS", str(tmp_path))
    folders(tmp_path, 2)
    sides = [f"--samples={tmp_path / 'made'}", f"--reference={tmp_path / 'originals'}", "--pairs"]
    assert sentence in refusal_of(command.main, [*sides, *flags])
