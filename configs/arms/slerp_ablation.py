"""The four published cells of spherical flow matching's ablation
(docs/systems/spherical_flow.md#published-results), and no others:

    python -m sphere_jax.compare --config=configs/X.py --arms=configs/arms/slerp_ablation.py

Raw latents keep the original decoder; on spheres it is the one that the base's 'decoder' stage
finetunes, or the original where the base has no such stage.
"""


def get_arms(config):
    """{name: {key: value}} for a base config."""
    tuned = config.stages
    original = tuple(name for name in tuned if config.stage(name).method != "decoder")
    return {
        "raw, linear": {"space.path": "linear", "stages": original},
        "raw, polar": {"space.path": "polar", "stages": original},
        "sphere, linear": {"space.path": "shell_linear", "stages": tuned},
        "sphere, slerp": {"space.path": "slerp", "stages": tuned},
    }
