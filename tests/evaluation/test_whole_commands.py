"""Whole commands on two folders of pictures, ours and those of other packages: the same number from
the same random weights."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import linalg

from sphere_jax.evaluation import evaluate
from sphere_jax.weights.layouts.inception import layouts
from sphere_jax.weights.stored import write_weights
from sphere_jax.weights.tensors import convert

COUNT = 12  # images on each side
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "flowers12_224.npz"
pytestmark = pytest.mark.parity


def write_pictures(folder, seed: int):
    """Smooth colours with noise, as JPEG and PNG, which random weights tell apart."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(COUNT):
        coarse = rng.integers(0, 256, (5, 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((40, 48), Image.BICUBIC)
        noise = rng.normal(0, 5 + 10 * seed, (48, 40, 3))
        pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{'jpg' if number % 3 else 'png'}")
    return folder


def write_photos(folder, first: int):
    """Flowers of 224 pixels, a third of them as PNG."""
    if not PHOTOS.exists():
        pytest.skip("shared/data/flowers12_224.npz is not here")
    folder.mkdir()
    with np.load(PHOTOS) as stored:
        start = stored["offsets"][first : first + COUNT + 1]
        encoded = [stored["jpeg_bytes"][a:b].tobytes() for a, b in itertools.pairwise(start)]
    for number, jpeg in enumerate(encoded):
        if number % 3:
            (folder / f"{number}.jpg").write_bytes(jpeg)
        else:
            Image.open(io.BytesIO(jpeg)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module", params=["generated", "photos"])
def folders(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    if request.param == "photos":
        return [write_photos(root / f"{first}", first) for first in (0, 200)]
    return [write_pictures(root / f"{seed}", seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """pytorch-fid's network with random weights, and files of these: converted, and PyTorch's."""
    torch = pytest.importorskip("torch")
    import torch_originals as originals

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "models")
        from test_inception import network, random_original

        model, _ = random_original(patch)
        files = [tmp_path_factory.mktemp("weights") / name for name in ("i.safetensors", "i.pth")]
        net = network()
        params = convert(originals.published(model), layouts(net), net)
        write_weights(files[0], params, "inception_fid", "random")
        torch.save(model.state_dict(), files[1])
        yield model, *files


@pytest.fixture
def quick_root(request, monkeypatch):
    """Of photos, the root of a product of covariances comes from eigenvalues, as ours does: the
    originals' own takes most of the time, and serves for the generated images. Of it, they read the
    trace alone."""

    def quick(product, disp=True):
        return np.diag(np.sqrt(np.linalg.eigvals(product).real.clip(0))), 0.0

    if request.node.callspec.params["folders"] == "photos":
        monkeypatch.setattr(linalg, "sqrtm", quick)


def test_fid_of_pytorch_fid(folders, inception, quick_root, tmp_path):
    """Of two folders, and of statistics that it stores."""
    torch = pytest.importorskip("torch")
    from torchvision_shim import importorskip

    _, weights, _ = inception
    score = importorskip("pytorch_fid.fid_score")
    stored = tmp_path / "stored.npz"
    score.save_fid_stats([str(folders[1]), str(stored)], 8, "cpu", 2048, 0)
    with torch.no_grad():
        paths = [str(folders[0]), str(stored)]  # whose statistics are those of the folder
        expected = score.calculate_fid_given_paths(paths, 8, "cpu", 2048, 0)
    found = evaluate(*folders, ("fid",), weights=weights, batch_size=10)
    assert found["metrics"]["fid"] == pytest.approx(expected, rel=1e-3)
    against = evaluate(folders[0], stored, ("fid",), weights=weights, batch_size=10)
    assert against["metrics"]["fid"] == pytest.approx(expected, rel=1e-3)
    assert against["protocol"]["reference"]["statistics"]["images"] is None
    assert "taken for those of inception_fid" in against["remarks"][0]


def test_four_metrics_of_torch_fidelity(folders, inception):
    """Its precision and recall are of VGG-16, if they are not given the network of the others."""
    from torchvision_shim import importorskip

    _, weights, state = inception
    fidelity = importorskip("torch_fidelity")
    expected = fidelity.calculate_metrics(
        input1=str(folders[0]), input2=str(folders[1]), cuda=False, cache=False, verbose=False,
        samples_find_ext="png,jpg", feature_extractor_weights_path=str(state), batch_size=8,
        isc=True, isc_splits=2, fid=True, kid=True, kid_subsets=5, kid_subset_size=8, prc=True,
        feature_extractor="inception-v3-compat", feature_layer_prc="2048",
    )  # fmt: skip
    form = "network=inception_tensorflow"
    metrics = (
        f"fid:{form}",
        f"inception_score:{form},splits=2",
        f"kid:{form},subsets=5,subset_size=8",
        f"precision_recall:{form}",
    )
    found = evaluate(*folders, metrics, weights=weights, batch_size=10)["metrics"]
    for theirs, ours in {
        "frechet_inception_distance": "fid",
        "inception_score_mean": "inception_score",
        "kernel_inception_distance_mean": "kid",
        "precision": "precision",
        "recall": "recall",
    }.items():
        assert found[f"{ours}_inception_tensorflow"] == pytest.approx(expected[theirs], rel=1e-3)


def test_fid_of_clean_fid(folders, inception, quick_root):
    """Its own network only comes as a download, so it is given pytorch-fid's, which is equal."""
    torch = pytest.importorskip("torch")
    from torchvision_shim import importorskip

    model, weights, _ = inception
    clean = importorskip("cleanfid.fid")
    network = importorskip("pytorch_fid.inception").InceptionV3((3,), False, False).eval()
    with torch.no_grad():
        expected = clean.compute_fid(
            *map(str, folders), mode="clean", num_workers=0, batch_size=8, device="cpu",
            verbose=False, custom_feat_extractor=lambda x: network((x - 128) / 128)[0].flatten(1),
        )  # fmt: skip
    metric = "fid:network=inception_clean"
    found = evaluate(*folders, (metric,), weights=weights, batch_size=10)["metrics"]
    assert found["fid_inception_clean"] == pytest.approx(expected, rel=1e-3)
