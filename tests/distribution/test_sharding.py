"""One training on meshes of 1, 2, 4 and 8 devices: the same numbers, and nothing held twice."""

from pathlib import Path

import pytest
import tiny_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def everything():
    return tiny_run.on_devices(8, Path(__file__).with_name("on_meshes.py"), timeout=1800)


@pytest.fixture(scope="module")
def found(everything):
    return everything["steps"]


def test_loss_gradient_and_twenty_steps_are_equal_on_every_mesh(found):
    assert len(found) == 12
    for mesh, each in found.items():
        for name in ("loss", "gradient", "params"):
            assert each[name] < 1e-5, (mesh, name, each[name])


def test_no_step_holds_a_copy_of_what_is_sharded(found):
    """By the shardings of the state after 20 steps, and the arguments of the compiled step."""
    for mesh, each in found.items():
        axes, _, rest = mesh.partition(" ")
        data, fsdp = map(int, axes.split("x"))
        parts = fsdp if rest else data * fsdp
        assert each["share"] == pytest.approx(1 / parts), mesh
        assert each["arguments"] < 1.2 * found["1x1"]["arguments"] / parts, mesh


def test_layers_split_over_fsdp_are_gathered_one_by_one(found):
    for mesh, each in found.items():
        split = "x1" not in mesh
        assert (each["layers"] > 0) == split, mesh
        if mesh.startswith("1x") or mesh.endswith("without zero"):
            assert each["whole_stacks"] == 0, mesh
    assert found["8x1"]["whole_stacks"] > 0  # over `data`, once a step


def test_no_step_gathers_the_activations_of_the_whole_batch(found):
    for mesh, each in found.items():
        assert each["whole_batches"] == 0, mesh


def test_convolutions_are_equal_on_every_mesh_and_gather_their_kernels(everything):
    found = everything["convolutions"]
    assert len(found) == 3
    for mesh, each in found.items():
        assert each["loss"] < 1e-5 and each["gradient"] < 1e-5, (mesh, each)
        assert each["gathered"] == (0 if mesh == "1x1" else 2), mesh
