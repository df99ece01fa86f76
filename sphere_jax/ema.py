"""Weights averaged over any share of a run, from the snapshots that it kept.

    python -m sphere_jax.main --config=configs/imagenet_slerp.py --workdir=runs/slerp \\
        --config.flow.ema_profiles=0.05,0.1 --config.flow.ema_snapshot_every=5000
    python -m sphere_jax.ema --workdir=runs/slerp --sigma_rel=0.15 --out=weights.safetensors
"""

from pathlib import Path

from sphere_jax.cli import Parser, run_command
from sphere_jax.common.errors import UserError

EPILOG = """\
--sigma_rel is the width of the average's profile over the length of the run up to --step (Karras et
al. 2024): 0.01 is nearly the last weights alone, 0.28 nearly the mean of all. It may be any, not
only one that was tracked; how far the result is from it is printed.
What it writes is sampled and scored in the place of the run's own weights, with its decoder:
  python -m sphere_jax.evaluate --workdir=runs/slerp --weights=weights.safetensors --num=50000
and is what --config.STAGE.pretrained of another run begins with.
STAGE is a flow or a sphere_latent stage; the averages of other stages are not written.
"""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument("--workdir", required=True, help="the folder of a run, finished or not")
    flags.add_argument("--sigma_rel", type=float, required=True, help="relative width, 0 to 0.2887")
    flags.add_argument("--out", required=True, metavar="F.safetensors", help="what to write")
    flags.add_argument("--step", type=int, help="where it ends; default: the last snapshot")
    flags.add_argument("--stage", default="", help="which one, where several kept snapshots")
    arguments = flags.parse_args(argv)

    from sphere_jax.training.ema_snapshots import combine
    from sphere_jax.weights.stored import write_weights

    if not arguments.out.endswith(".safetensors"):
        raise UserError(f"--out={arguments.out} must name a .safetensors file to write.")
    stage, snapshots = _snapshots(Path(arguments.workdir), arguments.stage)
    step = snapshots[-1].step if arguments.step is None else arguments.step
    tensors, error = combine(snapshots, arguments.sigma_rel, step)
    if not all(name.startswith("network/") for name in tensors):
        raise UserError(f"Stage '{stage}' trained no network on latents; only those are written.")
    tensors = {name.removeprefix("network/"): tensor for name, tensor in tensors.items()}
    source = f"{arguments.workdir}, step {step}, sigma_rel {arguments.sigma_rel}"
    found = write_weights(arguments.out, tensors, f"stage {stage}", source)
    print(
        f"{arguments.out}: average of width {arguments.sigma_rel:g} at step {step:,}, its profile "
        f"off by {100 * error:.2g}%, fingerprint {found}"
    )


def _snapshots(workdir: Path, stage: str):
    """The stage's name and its snapshots, the oldest first."""
    from sphere_jax.training.ema_snapshots import read_snapshots, snapshot_folder

    kept = {}
    for checkpoints in sorted((workdir / "checkpoints").glob("*/")):
        if snapshots := read_snapshots(snapshot_folder(checkpoints)):
            kept[checkpoints.name] = snapshots
    if not kept:
        raise UserError(
            f"{workdir} holds no snapshots of averages; train with config.flow.ema_profiles and "
            "config.flow.ema_snapshot_every."
        )
    if stage not in kept and (stage or len(kept) > 1):
        raise UserError(f"--stage={stage!r} must be one of {', '.join(kept)}.")
    stage = stage or next(iter(kept))
    return stage, kept[stage]


if __name__ == "__main__":
    run_command(main)
