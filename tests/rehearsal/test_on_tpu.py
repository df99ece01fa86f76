"""A rehearsal by the compiler for TPUs, which needs no TPU."""

import json
import subprocess
import sys

import pytest
import tiny_run
from estimates import CONFIG

from sphere_jax.rehearsal.chips import CHIPS

WHY = "the compiler for TPUs is not installed: pip install -r requirements-parity.txt"
pytestmark = pytest.mark.parity
OVERSIZED = """
import jax, jax.numpy as jnp
from sphere_jax.rehearsal.chips import CHIPS, devices_of
devices, _ = devices_of("v5e:2x2")
sharding = jax.sharding.SingleDeviceSharding(devices[0])
given = jax.ShapeDtypeStruct((2**17, 2**17), jnp.float32, sharding=sharding)
jax.jit(lambda x: x + 1).lower(given).compile()
"""
BOTH_TEXTS = """
import jax, jax.numpy as jnp
from sphere_jax.distribution.mesh import batch_sharding, make_mesh
from sphere_jax.rehearsal.chips import devices_of
from sphere_jax.rehearsal.compiled_text import read_program
from sphere_jax.rehearsal.estimate import compile_for
devices, _ = devices_of("v5e:2x2")
mesh = make_mesh(1, 4, devices)
x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16, sharding=batch_sharding(mesh))
layer = lambda x, _: (jnp.tanh(x.T @ x), None)
lowered = jax.jit(lambda x: jax.lax.scan(layer, x, length=5)[0]).lower(x)

def unreadable(self):
    raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

_, ours = compile_for(True, lowered)
jax.stages.Compiled.as_text = unreadable
_, theirs = compile_for(True, lowered)
found = read_program(ours)
assert found == read_program(theirs) and found.cycles > 0 and found.collectives
"""


@pytest.fixture(autouse=True)
def libtpu():
    pytest.importorskip("libtpu", reason=WHY)


def ran(code: str) -> subprocess.CompletedProcess:
    """In a process of its own: libtpu may end it."""
    line, env = [sys.executable, "-c", code], tiny_run.environment()
    return subprocess.run(line, cwd=tiny_run.ROOT, env=env, capture_output=True, text=True)


def test_a_rehearsal_for_four_chips(tmp_path):
    (tmp_path / "tiny.py").write_text(CONFIG)
    page = tmp_path / "page.md"
    flags = [f"--config={tmp_path / 'tiny.py'}", "--topology=v5e:2x2", f"--page={page}"]
    out, _ = tiny_run.finish(tiny_run.launch("rehearse", *flags), timeout=800)
    assert "train flow  (v5e:2x2: data 1, fsdp 4; 16 images)" in out and "sample  (" in out
    assert "a chip: fits" in out and "the CPU compiler" not in out
    records = {
        content["program"]: content
        for content in map(json.loads, (f.read_text() for f in (tmp_path / "rehearsals").iterdir()))
    }
    step = records["train flow"]
    hidden, not_hidden = step["seconds"]
    assert 0 < step["ideal"] < hidden < not_hidden < 0.1
    assert step["days"] == pytest.approx([20 * s / 86_400 for s in step["seconds"]])
    assert step["utilisation"] == pytest.approx([step["ideal"] / s for s in step["seconds"]])
    assert step["fits"] is True and step["memory"] == CHIPS["v5e"].memory
    assert sum(step["parts"].values()) < step["peak"] < step["memory"]
    assert len(step["costliest"]) == 10 and min(cost for *_, cost in step["costliest"]) > 0
    # Every weight is gathered in bfloat16 for the forward and once more for the backward pass, and
    # gradients are reduced.
    assert 0 < step["collectives"]["all-gather"][1] < 2 * 4 * step["parts"]["params"]
    assert {"all-reduce", "reduce-scatter"} & step["collectives"].keys()
    assert 0 < step["meanwhile"] < step["sent"]
    assert step["not_donated"] < 0.01 * step["parts"]["params"] and step["float32"][0] < 0.05
    assert step["libtpu"] and records["sample"]["days"] is None
    assert "| tiny | train flow | v5e:2x2 | 1 x 4 | 16 |" in page.read_text()


def test_the_memory_of_a_chip_is_what_the_compiler_leaves():
    done = ran(OVERSIZED)
    left = f"{CHIPS['v5e'].memory / 2**30:.2f}G"
    assert done.returncode == 1 and f"exceeds available HBM ({left})" in done.stderr


def test_a_program_that_jaxlib_cannot_read_is_read_as_the_compiler_wrote_it():
    done = ran(BOTH_TEXTS)
    assert done.returncode == 0, done.stderr
