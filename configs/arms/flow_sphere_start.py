"""Does the flow train faster from the decode than from noise? The four arms of flow_sphere.py that
answer it, for more seeds or other images (docs/systems/flow_sphere.md#measured):

    python -m sphere_jax.compare --config=configs/mnist_flow_sphere.py \\
        --arms=configs/arms/flow_sphere_start.py --workdir=runs/start --seeds=0,1,2,3
"""

import runpy
from pathlib import Path

ARMS = "mix", "decode alone", "from noise", "from noise, no context"
all_arms = runpy.run_path(str(Path(__file__).with_name("flow_sphere.py")))


def get_arms(config):
    """{name: {key: value}}, as those of flow_sphere.py."""
    found = all_arms["get_arms"](config)
    return {name: found[name] for name in ARMS}
