"""Files of weights of every kind, and those that `write_weights` makes."""

import argparse
import collections
import json
import os
import pathlib
import pickle
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from sphere_jax.common.errors import UserError
from sphere_jax.common.temporary import temporary_beside
from sphere_jax.distribution.mesh import make_mesh, put_global, tree_shardings
from sphere_jax.nn.functional import Network
from sphere_jax.nn.linear import Linear
from sphere_jax.weights.opening import Stored, StoredTensors, open_tensors
from sphere_jax.weights.stored import (
    fingerprint_of,
    load_weights,
    write_safetensors,
    write_weights,
)
from sphere_jax.weights.tensors import Layout, linear_kernel, torch_layer


class Two(nnx.Module):
    def __init__(self, *, rngs, width=5):
        self.first = Linear(3, width, rngs=rngs)
        self.second = Linear(width, 2, rngs=rngs)
        self.gain = nnx.Param(jax.numpy.float32(2.0))


TWO = Network(lambda rngs: Two(rngs=rngs))


def layouts(network):
    leaves = torch_layer("first", "a", linear_kernel) | torch_layer("second", "b", linear_kernel)
    return [Layout("the authors", leaves)]


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (5, 3), "a.bias": (5,), "b.weight": (2, 5), "b.bias": (2,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def same(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found.shape_of(name) == tensor.shape


# --- published files -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_safetensors(tmp_path, tensors, dtype):
    stored = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    save_file(stored, tmp_path / "x.safetensors")
    found = open_tensors(tmp_path / "x.safetensors")
    same(found, stored)
    assert found["a.bias"].dtype == dtype
    with pytest.raises(KeyError):
        found["none"]


def test_pickles_of_numpy_arrays(tmp_path, tensors):
    tree = {"A": {"weight": tensors["a.weight"], "bias": tensors["a.bias"]}}
    for protocol in (3, 4):
        (tmp_path / "x.ckpt").write_bytes(pickle.dumps(tree, protocol))
        same(open_tensors(tmp_path / "x.ckpt"), {f"A/{k}": v for k, v in tree["A"].items()})


def test_wrappers_are_removed(tmp_path, tensors):
    save_file({f"module.model.{n}": t for n, t in tensors.items()}, tmp_path / "x.safetensors")
    same(open_tensors(tmp_path / "x.safetensors"), tensors)
    save_file({"model.a": np.zeros(1), "b": np.zeros(1)}, tmp_path / "y.safetensors")
    assert set(open_tensors(tmp_path / "y.safetensors")) == {"model.a", "b"}


def test_files_of_two_halves_and_folders(tmp_path):
    one, two = {"0.weight": np.float32([1])}, {"0.weight": np.float32([2])}
    save_file(one, tmp_path / "tiny_encoder.safetensors")
    save_file(two, tmp_path / "tiny_decoder.safetensors")
    expected = {"encoder.0.weight": one["0.weight"], "decoder.0.weight": two["0.weight"]}
    same(open_tensors(tmp_path), expected)
    names = ("tiny_encoder.safetensors", "tiny_decoder.safetensors")
    same(open_tensors(*[tmp_path / name for name in names]), expected)
    same(open_tensors(tmp_path / names[0]), one)  # alone it stays as it is
    save_file({"decoder.0.weight": np.zeros(1)}, tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match="both have a tensor 'decoder.0.weight'"):
        open_tensors(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no weights file"):
        open_tensors(tmp_path / "empty")


def test_bad_files_are_named(tmp_path, tensors):
    whole = tmp_path / "whole.safetensors"
    save_file(tensors, whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(ValueError, match="cut.safetensors is not a whole .safetensors file"):
        open_tensors(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="none.safetensors is not there"):
        open_tensors(tmp_path / "none.safetensors")
    (tmp_path / "x.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"x.h5 has no suffix that is read here \(.safetensors"):
        open_tensors(tmp_path / "x.h5")


PAGES = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n": "is a Git LFS pointer",
    b"\n<!DOCTYPE html><html>Not found</html>": "is a web page and not weights",
    b"": "is empty",
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", PAGES)
def test_what_comes_in_place_of_a_file_is_said(tmp_path, content, suffix):
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=PAGES[content]) as caught:
        open_tensors(file)
    assert "weights_only" not in str(caught.value)
    with pytest.raises(UserError, match=PAGES[content]):
        fingerprint_of(file)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_pipe_is_refused_and_not_read(tmp_path, suffix):
    file = tmp_path / f"x{suffix}"
    os.mkfifo(file)  # reading it would wait for ever
    with pytest.raises(ValueError, match="is a device, pipe or socket, not a file"):
        open_tensors(file)
    with pytest.raises(UserError, match="is a device, pipe or socket, not a file"):
        fingerprint_of(file)


def test_asking_for_a_name_reads_nothing(tmp_path, tensors):
    def read():
        raise AssertionError("was read")

    found = StoredTensors({"a": Stored((1,), read)})
    assert "a" in found and "b" not in found and list(found) == ["a"]


def test_tensors_of_eight_bits_are_named(tmp_path):
    ones = np.ones(2, ml_dtypes.float8_e4m3fn)
    header = {"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + ones.tobytes()
    (tmp_path / "x.safetensors").write_bytes(content)
    found = open_tensors(tmp_path / "x.safetensors")
    assert found.shape_of("a") == (2,)
    with pytest.raises(ValueError, match="tensor 'a' holds F8_E4M3; take the file in float32"):
        found["a"]


def test_halves_of_an_autoencoder_are_told_by_what_else_their_names_say(tmp_path):
    for half in ("encoder", "decoder"):
        one = np.ones(1, np.float32)
        save_file({"0.weight": one}, tmp_path / f"autoencoder_{half}.safetensors")
    assert set(open_tensors(tmp_path)) == {"encoder.0.weight", "decoder.0.weight"}


def test_shards_and_their_index(tmp_path, tensors):
    index = {"weight_map": {}}
    for n, name in enumerate(tensors):
        file = f"model-{n}.safetensors"
        save_file({name: tensors[name]}, tmp_path / file)
        index["weight_map"][name] = file
    save_file(tensors, tmp_path / "other.safetensors")  # not of the index
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    same(open_tensors(tmp_path), tensors)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(ValueError, match="model-1.safetensors is not there, which .*index.json"):
        open_tensors(tmp_path)


def test_the_root_of_a_pipeline_names_its_folders_of_weights(tmp_path, tensors):
    for part in ("unet", "vae", "scheduler"):
        (tmp_path / part).mkdir()
    for part in ("unet", "vae"):
        save_file(tensors, tmp_path / part / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"itself; give \S*/unet or \S*/vae$"):
        open_tensors(tmp_path)


def trap(path):
    class Trap:
        def __reduce__(self):
            return (open, (str(path), "w"))

    return Trap()


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "x.pth", "x.bin"])
def test_nothing_in_a_file_is_executed(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"a": trap(tmp_path / "sprung")}))
    with pytest.raises(ValueError, match=name):
        open_tensors(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parity
def test_files_of_pytorch(tmp_path, tensors):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    halves = {name: tensor.bfloat16() for name, tensor in state.items()}
    torch.save({"state_dict": halves, "epoch": 3}, tmp_path / "half.ckpt")
    flags = argparse.Namespace(lr=1e-4)
    other = {name: 0 * tensor for name, tensor in state.items()}
    torch.save({"model": other, "ema": state, "args": flags}, tmp_path / "training.pt")
    for name in ("new.pth", "old.pt", "training.pt"):
        same(open_tensors(tmp_path / name), tensors)
    expected = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    same(open_tensors(tmp_path / "half.ckpt"), expected)

    (tmp_path / "cut.pth").write_bytes((tmp_path / "new.pth").read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut.pth is not a whole PyTorch file"):
        open_tensors(tmp_path / "cut.pth")
    torch.save({"a": trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="trap.pth holds no tensors by name but _?io.open"):
        open_tensors(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth holds no tensors by name but int"):
        open_tensors(tmp_path / "list.pth")


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_other_objects_beside_weights_are_never_built(tmp_path, tensors, zipped):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    beside = {
        "best": np.float64(3.2),
        "args": argparse.Namespace(data=pathlib.PurePosixPath("data"), scale=np.ones(2)),
        "counts": collections.defaultdict(int, a=1),
        "trap": trap(tmp_path / "sprung"),
    }
    content = {"ema": {"module": state, "decay": 0.999}, "model": {}} | beside
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = open_tensors(tmp_path / "x.pt")
    same(found, tensors)
    assert found.inside == "ema.module"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parity
def test_tensors_that_numpy_cannot_hold_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    one = torch.ones(2, 2)
    kinds = {
        "float8": (one.to(torch.float8_e4m3fn), "holds float8_e4m3fn; take the file in float32"),
        "sparse": (one.to_sparse(), "is sparse; save tensor.to_dense"),
        "meta": (one.to("meta"), "the file has no numbers"),
        "eight": (torch.quantize_per_tensor(one, 0.1, 0, torch.qint8), "is quantised; take"),
    }
    for name, (tensor, words) in kinds.items():
        torch.save({name: tensor}, tmp_path / f"{name}.pt")
        found = open_tensors(tmp_path / f"{name}.pt")
        assert found.shape_of(name) == (2, 2)
        with pytest.raises(ValueError, match=f"tensor '{name}' {words}|tensor '{name}' .*{words}"):
            found[name]


@pytest.mark.parity
def test_models_programs_and_repacked_archives_are_refused(tmp_path, tensors):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="holds a torch.nn.*Linear, not tensors .*state_dict"):
        open_tensors(tmp_path / "model.pt")
    torch.save({0: torch.ones(1), 1: torch.ones(1)}, tmp_path / "numbers.pt")
    with pytest.raises(ValueError, match=r"numbers its tensors \(0, 1, ...\)"):
        open_tensors(tmp_path / "numbers.pt")
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("program/constants.pkl", b"")
    with pytest.raises(ValueError, match="is a TorchScript program"):
        open_tensors(tmp_path / "program.pt")
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as old,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    with pytest.raises(ValueError, match="was compressed after it was saved"):
        open_tensors(tmp_path / "packed.pt")


# --- converted files -----------------------------------------------------------------------------


def network_params(seed=0):
    return jax.tree.map(np.asarray, TWO.init(jax.random.key(seed)))


def test_a_converted_file_comes_back_block_by_block_onto_the_mesh(tmp_path):
    params, file = network_params(), tmp_path / "two.safetensors"
    found = write_weights(file, params, "two", "somewhere")
    assert fingerprint_of(file) == found
    leaves = load_weights(file, "two", TWO, layouts)
    jax.tree.map(np.testing.assert_array_equal, leaves, params)
    np.testing.assert_array_equal(
        leaves["first"]["kernel"][1:2, :3], params["first"]["kernel"][1:2, :3]
    )
    mesh = make_mesh()
    placed = put_global(mesh, leaves, tree_shardings(mesh, leaves))
    jax.tree.map(np.testing.assert_array_equal, placed, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(placed)} == {np.dtype(np.float32)}


def test_the_fingerprint_is_of_the_content(tmp_path):
    names = [tmp_path / f"{n}.safetensors" for n in "abc"]
    write_weights(names[0], network_params(), "two", "somewhere")
    write_weights(names[1], network_params(), "two", "elsewhere")
    write_weights(names[2], network_params(1), "two", "somewhere")
    one, two, three = map(fingerprint_of, names)
    assert one == two != three and len(one) == 16
    save_file({"a": np.zeros(1)}, tmp_path / "published.safetensors")
    assert len(fingerprint_of(tmp_path / "published.safetensors")) == 16
    with pytest.raises(UserError, match="none.safetensors is not there"):
        fingerprint_of(tmp_path / "none.safetensors")


def test_files_of_other_networks_are_refused(tmp_path, tensors):
    file = tmp_path / "two.safetensors"
    write_weights(file, network_params(), "two", "somewhere")

    def refusal(name="two", network=TWO, path=file):
        with pytest.raises(UserError) as error:
            load_weights(path, name, network, layouts)
        text = str(error.value)
        assert path.name in text and "\n" not in text and text.endswith(".")
        return text

    assert "'three': it holds 'two'" in refusal(name="three")
    wide = Network(lambda rngs: Two(rngs=rngs, width=7))
    assert "3 misshapen (first/bias (5,)" in refusal(network=wide)
    assert "is not there" in refusal(path=tmp_path / "none.safetensors")
    stored = load_file(file)
    stored["first/bias"] += 1
    metadata = {"format": "sphere_jax weights 1", "network": "two", "fingerprint": "0" * 16}
    write_safetensors(file, stored, metadata)
    assert "not have the fingerprint in its header" in refusal()
    file.write_bytes(file.read_bytes()[:-4])
    assert "not a whole .safetensors file" in refusal()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    file = tmp_path / "two.safetensors"
    (temporary_beside(file) / file.name).mkdir(parents=True)  # where it is written first
    with pytest.raises(UserError, match="Cannot write .*two.safetensors"):
        write_weights(file, network_params(), "two", "somewhere")
    assert not list(tmp_path.iterdir())
