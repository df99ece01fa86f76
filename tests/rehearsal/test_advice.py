"""Each sentence of `advice`: when it is said, and when it is not."""

import pytest
from estimates import GIB, estimate

from sphere_jax.rehearsal.advice import advice

TOO_LARGE = dict(fits=False, peak=20 * GIB, seconds=None, utilisation=None, days=None)
MANY = dict(collectives={"all-gather": (9, 129 * GIB, 0.0, 0.0)})  # 8 x 16 chips x 1 GiB, and more
MICRO = (
    "compute flow in micro-batches (config.flow.most_per_device, or config.flow.accumulate where "
    "that is refused)"
)


def test_nothing_is_said_where_nothing_is_wrong():
    assert advice(estimate()) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (TOO_LARGE,
         f"does not fit: {MICRO}, or take more chips"),
        (TOO_LARGE | {"recomputing": ("config.tokenizer.remat", "products", 0)},
         f"does not fit: {MICRO}, recompute more (config.tokenizer.remat='blocks'), or take more "
         "chips"),
        (TOO_LARGE | {"recomputing": ("config.model.remat", "none", 0)},
         f"does not fit: {MICRO}, recompute more (config.model.remat='products'), or take more "
         "chips"),
        (TOO_LARGE | {"program": "sample", "steps": 0, "parts": {"params": GIB}},
         "does not fit: lower config.sampler.batch_size"),
        (TOO_LARGE
         | {"program": "score", "steps": 0, "parts": {"params": GIB, "train state": GIB}},
         "does not fit: lower config.sampler.batch_size, or score after training "
         "(config.evaluation.every=0)"),
        (MANY, "gathers 139 GB a step, over 8 times the parameters in float32: activations of the "
         "whole batch are moved"),
        ({"examples": 48}, "3 images a chip are few: a larger batch, or fewer chips"),
        ({"examples": 16, "sent": 3e9},
         "1 image a chip is few, and sending takes 30 ms, computing 20: a larger batch, or fewer "
         "chips"),
        ({"examples": 32, "sent": 3e9},
         "2 images a chip are few, and sending takes 30 ms, computing 20: a larger batch, or fewer "
         "chips"),
        ({"float32": (0.18, ("linear.__call__",))},
         "18% of the products are float32: see their names"),
        ({"not_donated": 3_000_000}, "3 MB of the state are not written in place"),
        ({"recomputing": ("config.model.remat", "blocks", 6 * GIB)},
         "50% of the memory is used: try config.model.remat='products', which recomputes less and "
         "stores at most 6.44 GB more"),
        ({"recomputing": ("config.tokenizer.remat", "products", GIB), "peak": 2 * GIB},
         "12% of the memory is used: try config.tokenizer.remat='none', which recomputes less and "
         "stores at most 1.07 GB more"),
    ],
)  # fmt: skip
def test_what_is_said(changes, said):
    assert advice(estimate(**changes)) == (said,)


def test_a_state_that_no_chip_holds_twice_is_to_be_split_first():
    found = estimate(**TOO_LARGE | {"mesh": {"data": 16, "fsdp": 1}, "parts": {"params": 9 * GIB}})
    first, second = advice(found)
    assert first == "what is kept takes more than half of the memory: raise config.mesh.fsdp"
    assert second.startswith("does not fit: ")


@pytest.mark.parametrize(
    "changes",
    [
        MANY | {"micro_batches": 2},  # each gathers the parameters
        MANY | {"program": "sample", "steps": 0},
        {"examples": 16, "program": "sample", "steps": 0},
        {"float32": (0.04, ("linear.__call__",)), "not_donated": 2**20},
        {"recomputing": ("config.model.remat", "none", 0), "peak": GIB},  # nothing is recomputed
        {"recomputing": ("config.model.remat", "products", 0), "peak": GIB},  # nor in this stage
        {"recomputing": (), "peak": GIB},
        {"recomputing": ("config.model.remat", "blocks", 7 * GIB)},  # would not fit
        {"memory": None, "fits": None, "seconds": None, "topology": "cpu:4"},
    ],
)
def test_what_is_not_said(changes):
    assert advice(estimate(**changes)) == ()
