"""The ablation grid of spherical flow matching (docs/systems/spherical_flow.md#ablation-grid): 22
arms, or 11 in one decoder.

    python -m sphere_jax.compare --config=configs/X.py --arms=configs/arms/slerp_grid.py

{linear, data_projected, shell_linear, nlerp, slerp} x {original, finetuned decoder} x {tangent
projection on, off} x {exp, renormalize}. Cells that do not exist:

- straight paths (linear, data_projected, shell_linear) step in Euclidean space: nothing to retract,
  no tangent space to project on; one cell for each decoder.
- without a 'decoder' stage in the base no decoder is finetuned.

A retraction changes only sampling: arms that differ in it share weights.
"""

STRAIGHT = ("linear", "data_projected", "shell_linear")
CURVED = ("nlerp", "slerp")


def get_arms(config):
    """{name: {key: value}} for a base config."""
    flow = config.generator
    original = tuple(n for n in config.stages if config.stage(n).method != "decoder")
    decoders = {"original": original}
    if original != tuple(config.stages):
        decoders["finetuned"] = config.stages
    arms = {}
    for decoder, stages in decoders.items():
        for path in STRAIGHT:
            arms[f"{path}, {decoder}"] = {"space.path": path, "stages": stages}
        for path in CURVED:
            for tangent in (True, False):
                for retraction in ("exp", "renormalize"):
                    compared = "tangent" if tangent else "whole velocity"
                    arms[f"{path}, {decoder}, {compared}, {retraction}"] = {
                        "space.path": path,
                        "stages": stages,
                        f"{flow}.tangent_projection": tangent,
                        "space.retraction": retraction,
                    }
    return arms
