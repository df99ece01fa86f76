"""One training on meshes of 1, 2, 4 and 8 devices: the same numbers, and nothing held twice."""

import math
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
    assert len(found) == 17
    for mesh, each in found.items():
        for name in ("loss", "gradient", "params"):
            assert each[name] < 1e-5, (mesh, name, each[name])


def test_no_step_holds_a_copy_of_what_is_sharded(found):
    """By the shardings of the state after 20 steps, and the arguments of the compiled step."""
    for mesh, each in found.items():
        axes, _, rest = mesh.partition(" ")
        data, *others = map(int, axes.split("x"))
        parts = math.prod(others) * (1 if rest else data)
        assert each["share"] == pytest.approx(1 / parts), mesh
        assert each["arguments"] < 1.2 * found["1x1"]["arguments"] / parts, mesh


def test_temporaries_are_a_share_and_one_layer(everything, found):
    """By the compiled steps: the device's share of what one device needs, and one of two layers
    whole. Where `data` and another axis split, all layers are gathered over `data` at once: their
    weights and gradients, the share of the others each. Tokens are a share of `data` and `fsdp`:
    the devices of `tensor` hold the same."""
    one, blocks = found["1x1"]["temporaries"], everything["blocks"]
    for mesh, each in found.items():
        if mesh == "1x1" or mesh.endswith("without zero"):
            continue
        data, *others = map(int, mesh.split("x"))
        others = math.prod(others)
        shares = 2 * blocks / others if data > 1 and others > 1 else 0
        most = one / (data * others) + blocks / 2 + shares
        more = 1.3 if mesh.count("x") == 2 else 1.15
        assert each["temporaries"] < more * most, (mesh, each["temporaries"], most)


def test_bfloat16_in_micro_batches_is_that_of_one_device(everything):
    """To bfloat16's rounding: sums over a batch are in another order."""
    found = everything["bfloat16"]
    assert found["micro_batches"] == [5, 5]
    assert found["loss"] < 1e-3 and found["gradient"] < 1e-2 and found["params"] < 1e-3, found


def test_layers_are_gathered_one_by_one(found):
    """But the modulations, whose rows are exchanged. Where `data` and another axis split, a part of
    both is gathered over `data`."""
    for mesh, each in found.items():
        split = mesh.count("x") == 2
        assert (each["kept"] > 0) == (split and mesh != "1x1x2"), mesh  # which gathers nothing
        assert (each["layers"] > 0) == (mesh not in ("1x1", "8x1 without zero") and not split), mesh
        assert each["modulations"] == 0, mesh
        alone = mesh.startswith("1x") or "x1" in mesh
        assert each["largest_gather"] <= 64 * (4 if alone else 6) * 64, mesh


def test_no_step_gathers_the_activations_of_the_whole_batch(found):
    for mesh, each in found.items():
        if mesh != "1x1x2":  # whose devices share all examples
            assert each["whole_batches"] == 0, mesh


def test_convolutions_are_equal_on_every_mesh_and_gather_their_kernels(everything):
    found = everything["convolutions"]
    assert len(found) == 3
    for mesh, each in found.items():
        assert each["loss"] < 1e-5 and each["gradient"] < 1e-5, (mesh, each)
        assert each["gathered"] == (0 if mesh == "1x1" else 2), mesh


def test_layers_of_every_kind_are_split_by_tensor(everything):
    """Kernels of a feed-forward, of a projection and of a modulation stay split; loss and gradient
    are those of one device."""
    kinds = everything["kinds"]
    assert [len(each["kept"]) for each in kinds.values()] == [3, 3, 3]
    for kind, each in kinds.items():
        assert each["loss"] < 1e-5 and each["gradient"] < 1e-5, (kind, each)


def test_a_function_runs_on_each_device_with_its_part_of_the_batch(everything):
    assert len(everything["parts"]) == 4
    assert max(everything["parts"].values()) < 1e-5


def test_attention_of_many_tokens_is_a_kernel_on_every_device_of_a_tpu_pod(everything):
    """Forward and backward; a kernel outside of `on_each_device` is refused. One image of two heads
    a device, or one head of two images."""
    assert everything["kernels"] == [["2x1024x64"] * 2, ["2x1x1024x64"] * 2]
