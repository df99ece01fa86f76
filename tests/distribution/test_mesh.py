"""Meshes and sharding rules, on devices that need not be there."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from sphere_jax.common.errors import UserError
from sphere_jax.config.config_files import load_config
from sphere_jax.config.options import MeshOptions
from sphere_jax.distribution.mesh import (
    batch_sharding,
    configured_mesh,
    make_mesh,
    put_global,
    replicated,
    split_batches,
    tree_shardings,
)
from sphere_jax.methods.flow import FlowOptions
from sphere_jax.methods.hae import HAEOptions

PODS = sorted((Path(__file__).parents[2] / "configs").glob("imagenet*.py"))
FOR_PODS = {"imagenet64_flow_sphere": ["--config.flow_sphere.batch_size=256"]}  # 6, for one GPU


def specs(tree, fsdp=4, **options):
    mesh = AbstractMesh((2, fsdp), ("data", "fsdp"))
    return jax.tree.map(lambda s: s.spec, tree_shardings(mesh, tree, **options))


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((128, 128), P(None, "fsdp")),  # of equal axes, the last
        ((256, 64), P("fsdp")),
        ((2, 64, 192), P(None, None, "fsdp")),
        ((64, 257), P("fsdp")),  # the largest does not divide
        ((129, 257), P()),  # none divides
        ((127, 128), P()),  # too small
        ((2**14,), P("fsdp")),
        ((), P()),
    ],
)
def test_the_largest_divisible_axis_is_split(shape, spec):
    assert specs(np.zeros(shape, np.float32)) == spec


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((256, 64), P("fsdp", "data")),  # 64 are left of both axes: the last
        ((1024, 64), P(("fsdp", "data"))),
        ((2**14,), P(("fsdp", "data"))),
        ((129, 258), P(None, "data")),  # fsdp divides neither
        ((127, 128), P()),  # too small
    ],
)
def test_zero_splits_what_is_left_over_data(shape, spec):
    assert specs(np.zeros(shape, np.float32), zero=True) == spec


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        (
            (128, 128),
            P(("tensor", "data"), "fsdp"),
        ),  # of equal axes, the first: rows of a projection
        ((128, 512), P("data", ("tensor", "fsdp"))),  # hidden features
        ((512, 128), P(("tensor", "fsdp"), "data")),
        ((129, 258), P(None, "tensor")),
        ((127, 128), P()),  # too small
    ],
)
def test_tensor_comes_first(shape, spec):
    mesh = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    assert tree_shardings(mesh, np.zeros(shape), zero=True).spec == spec


def test_zero_without_fsdp():
    assert specs({"a": np.zeros((512, 512))}, fsdp=1, zero=True) == {"a": P(None, "data")}


def test_as_many_as_divide_the_devices_and_sixteen():
    shapes = [make_mesh(fsdp=0, devices=jax.devices()[:1]).shape]
    shapes += [make_mesh(1, 0, jax.devices()[:1]).shape]
    assert all(dict(shape) == {"data": 1, "fsdp": 1} for shape in shapes)


def test_without_fsdp_all_is_replicated():
    assert specs({"a": np.zeros((512, 512))}, fsdp=1) == {"a": P()}


def test_one_shape_one_sharding():
    leaf = jax.ShapeDtypeStruct((256, 256), np.float32)
    found = specs({"params": {"x": leaf}, "ema": {"y": leaf}, "m": (leaf,)})
    assert len(set(jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, P)))) == 1


@pytest.mark.parametrize(("data", "fsdp"), [(2, 1), (1, 2), (0, 1), (-1, 2), (3, 5)])
def test_a_mesh_that_does_not_match_the_devices(data, fsdp):
    with pytest.raises(UserError, match="but there are 1; set config.mesh.data"):
        make_mesh(data, fsdp, jax.devices()[:1])


def test_an_axis_for_tensor_where_it_is_asked_for():
    options = MeshOptions(fsdp=0, tensor=2)
    with pytest.raises(UserError, match="asks for 1 x 1 x 2 devices but there are 1; set"):
        configured_mesh(options, jax.devices()[:1])
    mesh = configured_mesh(dataclasses.replace(options, tensor=1), jax.devices()[:1])
    assert mesh.axis_names == ("data", "fsdp")
    with pytest.raises(UserError, match="asks for 2 x 2 x 3 devices but there are 8"):
        make_mesh(2, 2, [None] * 8, tensor=3)


def test_the_mesh_of_one_device():
    mesh = make_mesh(devices=jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1}
    placed = put_global(mesh, {"x": np.arange(6.0)}, {"x": batch_sharding(mesh)})
    np.testing.assert_array_equal(placed["x"], np.arange(6.0))
    assert replicated(mesh).is_fully_replicated


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    mesh = SimpleNamespace(devices=np.zeros((2, 4)))
    split_batches(mesh, "flow", FlowOptions(batch_size=32, accumulate=2))
    with pytest.raises(UserError, match="config.flow.batch_size=17 .* 8 devices; try 24."):
        split_batches(mesh, "flow", FlowOptions(batch_size=17))
    with pytest.raises(UserError, match="config.flow.batch_size/accumulate=4 .* 8 devices; try 8."):
        split_batches(mesh, "flow", FlowOptions(batch_size=16, accumulate=4))


@pytest.mark.parametrize(
    ("devices", "most", "accumulate", "parts"),
    [
        (8, 0, 2, 2),
        (8, 32, 1, 1),  # 256 / 8 are 32
        (8, 8, 1, 4),
        (8, 7, 1, 8),  # the next that divides
        (8, 8, 8, 8),  # already so many
        (256, 8, 1, 1),  # one on each
        (1, 1, 1, 256),
    ],
)
def test_as_many_micro_batches_as_a_device_needs(devices, most, accumulate, parts):
    mesh = SimpleNamespace(devices=np.zeros(devices))
    options = FlowOptions(batch_size=256, accumulate=accumulate, most_per_device=most)
    assert split_batches(mesh, "flow", options).accumulate == parts


def test_groups_of_a_norm_stay_together():
    mesh = SimpleNamespace(devices=np.zeros(1))
    grouped = dict(batch_size=64, norm_group=8, most_per_device=4)
    options = HAEOptions(adversarial_weight=0.5, **grouped)
    assert split_batches(mesh, "decode", options).accumulate == 8
    assert split_batches(mesh, "decode", HAEOptions(**grouped)).accumulate == 16


@pytest.mark.parametrize("path", PODS, ids=lambda path: path.stem)
@pytest.mark.parametrize("devices", [16, 256])
def test_shipped_batches_split_over_pods(path, devices):
    config = load_config(str(path), FOR_PODS.get(path.stem, []))
    mesh = AbstractMesh((devices // 16, 16), ("data", "fsdp"))
    mesh = SimpleNamespace(devices=np.empty(mesh.size), shape=mesh.shape)
    for stage in config.stages:
        split_batches(mesh, stage, config.stage(stage))
