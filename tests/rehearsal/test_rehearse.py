"""`sphere_jax.rehearse` on CPU devices, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import pytest
import tiny_run
from estimates import CONFIG
from refusals import refusal_of

from sphere_jax import rehearse
from sphere_jax.nn.attention import attend_by_splash
from sphere_jax.rehearsal.estimate import float32_products, kernel_flops, memory_needed


@pytest.fixture
def config(tmp_path):
    (tmp_path / "tiny.py").write_text(CONFIG)
    return f"--config={tmp_path / 'tiny.py'}"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--topology=v9:2x2"], "--topology=v9:2x2 is not known; give cpu:8, or a shape of one of"),
        (["--topology=cpu:0"], "--topology=cpu:0 is not known"),
        (["--topology=v5e"], "--topology=v5e is not known"),
    ],
)
def test_refusals(config, flags, words):
    assert words in refusal_of(rehearse.main, [config, *flags])


def test_products_of_float32_are_found_in_loops():
    def function(x, w):
        with jax.named_scope("narrow"):
            y = x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)
        with jax.named_scope("wide"):
            y, _ = jax.lax.scan(lambda y, _: (y @ w, None), y.astype(jnp.float32), length=3)
        return y

    jaxpr = jax.make_jaxpr(function)(jnp.ones((4, 8)), jnp.ones((8, 8)))
    share, names = float32_products(jaxpr)
    assert share == 3 / 4 and len(names) == 1


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("Ran out of memory in memory space hbm. Used 16.50G of 15.75G hbm. Exceeded by", 16.5),
        ("the total memory required for HLO temporaries (33.66G) exceeds available HBM (15.75G)",
         34.66),
        ("Used 18.20M of 16.00M vmem. Exceeded by", None),  # the compiler's own limit
        ("INTERNAL: something else", None),
    ],
)  # fmt: skip
def test_what_a_program_that_does_not_fit_needs(message, needed):
    found = memory_needed(f"RESOURCE_EXHAUSTED: {message}.", kept=2**30)
    assert found == (needed and pytest.approx(needed * 2**30))


@pytest.mark.slow
def test_a_rehearsal_on_four_devices(config, tmp_path):
    flags = [config, "--topology=cpu:4", f"--page={tmp_path / 'page.md'}"]
    out, _ = tiny_run.finish(tiny_run.launch("rehearse", *flags))
    assert "train flow  (cpu:4: data 1, fsdp 4; 16 images)" in out and "sample  (" in out
    assert out.count("the CPU compiler estimates no times") == 2
    kept = json.loads((tmp_path / "rehearsals" / "tiny-train_flow-cpu_4-1x4.json").read_text())
    # Every weight is gathered in bfloat16 for the forward and once more for the backward pass.
    params = 4 * kept["parts"]["params"]
    assert 0 < kept["collectives"]["all-gather"][1] < 2 * params
    assert kept["not_donated"] < 0.01 * params and kept["float32"][0] < 0.05
    page = (tmp_path / "page.md").read_text()
    assert "| tiny | sample | cpu:4 | 1 x 4 | 16 |" in page


def test_products_of_kernels_are_counted_for_every_cell_of_their_grid():
    """Two of the forward and five of the backward pass; their factors are no float32 products."""
    batch, tokens, heads, head_dim = 3, 1024, 2, 72
    q = jax.ShapeDtypeStruct((batch, tokens, heads, head_dim), jnp.bfloat16)

    def loss(q, k, v):
        return attend_by_splash(q, k, v).astype(jnp.float32).sum()

    forward = jax.jit(loss).trace(q, q, q).jaxpr
    both = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, q, q).jaxpr
    one = 2 * batch * heads * tokens**2 * head_dim
    assert kernel_flops(forward) == 2 * one and kernel_flops(both) == 7 * one
    assert float32_products(forward) == (0.0, ())
    scanned = jax.jit(
        lambda q: jax.lax.scan(lambda q, _: (attend_by_splash(q, q, q), None), q, length=4)
    )
    assert kernel_flops(scanned.trace(q).jaxpr) == 4 * 2 * one
