"""What flow-sphere's design is worth, part by part (docs/systems/flow_sphere.md#measured):

    python -m sphere_jax.compare --config=configs/mnist_flow_sphere.py \\
        --arms=configs/arms/flow_sphere.py --workdir=runs/flow_sphere --seeds=0,1

"decode alone" has the weights of "mix" and stops before the refiner. The arms "from noise" have the
same refiner with nothing of the decode in its start, and with nothing of it at all.
"""


def get_arms(config):
    """{name: {key: value}} for a base config with one stage of the method flow_sphere."""
    (stage,) = config.stages
    rope = "1d" if config.tokenizer.rope == "2d" else "2d"
    return {
        "mix": {},
        "decode alone": {"sampler.steps": 0},
        "from noise": {f"{stage}.rho": 1.0},
        "from noise, no context": {f"{stage}.rho": 1.0, f"{stage}.context": False},
        "rho 0": {f"{stage}.rho": 0.0},
        "rho 0.25": {f"{stage}.rho": 0.25},
        "rho 0.5": {f"{stage}.rho": 0.5},
        "no flow gradients": {f"{stage}.encoder_gradients": False},
        f"{rope} RoPE": {"tokenizer.rope": rope},
    }
