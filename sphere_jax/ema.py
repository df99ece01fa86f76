"""Averages the weights of a run over any width, from the snapshots that it saved.

    python -m sphere_jax.main --config=configs/imagenet_slerp.py --workdir=runs/slerp \\
        --config.flow.ema_profiles=0.05,0.1 --config.flow.ema_snapshot_every=5000
    python -m sphere_jax.ema --workdir=runs/slerp --sigma_rel=0.15 --out=weights.safetensors
"""

from pathlib import Path

from sphere_jax.cli import Parser, run_command, user_path
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import make_parent
from sphere_jax.common.flags import number, whole

EPILOG = """\
--sigma_rel is the width of the average's profile over the length of the run up to --step (Karras et
al. 2024): 0.01 is nearly the last weights alone, 0.28 nearly the mean of all. It need not be one
of the tracked widths; the approximation error is printed, and above 10% it is refused.
The output can be sampled and scored instead of the run's own weights, with the run's decoder:
  python -m sphere_jax.evaluate --workdir=runs/slerp --weights=weights.safetensors --num=50000
and another run can start from it, with --config.STAGE.pretrained.
Only networks on latents (flow and sphere_latent stages) are written.
"""


def main(argv: list[str]) -> None:
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument(
        "--workdir", type=user_path, required=True, help="the folder of a run, finished or not"
    )
    flags.add_argument(
        "--sigma_rel", type=number(0.0), required=True, help="relative width, 0 to 0.2887"
    )
    flags.add_argument(
        "--out", type=user_path, required=True, metavar="F.safetensors", help="the file to write"
    )
    flags.add_argument(
        "--step", type=whole(1), help="end of the average (default: the last snapshot)"
    )
    flags.add_argument("--stage", default="", help="stage, if several have snapshots")
    flags.add_argument(
        "--force", action="store_true", help="write an average whose profile is off by over 10%%"
    )
    arguments = flags.parse_args(argv)

    from sphere_jax.runs.provenance import provenance_in
    from sphere_jax.training.ema_snapshots import combine
    from sphere_jax.weights.stored import write_weights

    if not arguments.out.endswith(".safetensors"):
        raise UserError(f"--out={arguments.out} must name a .safetensors file to write.")
    make_parent(arguments.out)
    stage, snapshots = _snapshots(Path(arguments.workdir), arguments.stage)
    step = snapshots[-1].step if arguments.step is None else arguments.step
    tensors, error = combine(snapshots, arguments.sigma_rel, step, arguments.force)
    if not all(name.startswith("network/") for name in tensors):
        raise UserError(f"Stage '{stage}' trained no network on latents; only those are written.")
    tensors = {name.removeprefix("network/"): tensor for name, tensor in tensors.items()}
    source = f"{arguments.workdir}, step {step}, sigma_rel {arguments.sigma_rel}"
    about = provenance_in(Path(arguments.workdir), stage)
    found = write_weights(arguments.out, tensors, f"stage {stage}", source, about)
    print(
        f"{arguments.out}: average of width {arguments.sigma_rel:g} at step {step:,}, its profile "
        f"off by {100 * error:.2g}%, fingerprint {found}"
    )


def _snapshots(workdir: Path, stage: str):
    """The stage's name and its snapshots, the oldest first."""
    from sphere_jax.training.ema_snapshots import read_snapshots, snapshot_folder

    found = {}
    for checkpoints in sorted((workdir / "checkpoints").glob("*/")):
        if snapshots := read_snapshots(snapshot_folder(checkpoints)):
            found[checkpoints.name] = snapshots
    if not found:
        raise UserError(
            f"{workdir} holds no snapshots of averages; train with config.flow.ema_profiles and "
            "config.flow.ema_snapshot_every."
        )
    if stage not in found and (stage or len(found) > 1):
        raise UserError(f"--stage={stage!r} must be one of {', '.join(found)}.")
    stage = stage or next(iter(found))
    return stage, found[stage]


if __name__ == "__main__":
    run_command(main)
