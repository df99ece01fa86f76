"""One step of every method on eight devices is that on one: draws, norms and weights included."""

from pathlib import Path

import pytest
import tiny_run

from sphere_jax.common import plugins

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    script = Path(__file__).with_name("on_every_method.py")
    return tiny_run.on_devices(8, script, timeout=1800)


@pytest.mark.parametrize("name", plugins.known("methods", "METHOD"))
def test_loss_and_gradient_are_equal_on_every_mesh(found, name):
    each = found[name]
    assert each["split"] > 0.9, each  # of its parameters
    assert min(each["size"].values()) > 0, each  # every player has a gradient
    assert each["loss"] < 1e-5 and each["parts"] < 1e-5 and each["advanced"] < 1e-5, each
    assert max(each["gradient"].values()) < 1e-5, each
