"""The published paths and nlerp in the original decoder, raw and sphere latents in a finetuned one.

    python -m sphere_jax.compare --config=configs/X.py --arms=configs/arms/paths.py

The published ablation (docs/systems/spherical_flow.md#published-results, `slerp_ablation.py`)
compares raw latents in the original decoder with projected ones in a finetuned decoder. Here
spheres have both, so that the effect of the path and that of the decoder can be separated, and so
have raw latents: their finetuned decoder is the control for what finetuning does by itself. Without
a 'decoder' stage in the base there are no finetuned decoders. Arms in two decoders share their
flow.
"""

RAW = {"raw, linear": "linear", "raw, polar": "polar"}
SPHERES = {"sphere, linear": "shell_linear", "sphere, nlerp": "nlerp", "sphere, slerp": "slerp"}
FINETUNED = ("raw, linear", "sphere, linear", "sphere, slerp")


def get_arms(config):
    """{name: {key: value}} for a base config."""
    tuned = tuple(config.stages)
    original = tuple(name for name in tuned if config.stage(name).method != "decoder")
    arms = {name: {"space.path": path, "stages": original} for name, path in RAW.items()}
    for name, path in SPHERES.items():
        arms[f"{name}, original decoder"] = {"space.path": path, "stages": original}
    for name in FINETUNED if tuned != original else ():
        arms[f"{name}, finetuned decoder"] = {"space.path": (RAW | SPHERES)[name], "stages": tuned}
    return arms
