"""Trains, samples and scores a run: the stages of a config, in order, then its report.

    python -m sphere_jax.main --config=configs/mnist_slerp.py --workdir=runs/mnist_slerp

Run the same command again after an interruption: it resumes from the last checkpoint.
"""

from pathlib import Path

from sphere_jax.cli import Parser, joins_processes, parse_with_config, run_command, user_path
from sphere_jax.config.option_reference import help_of

EPILOG = """\
any value of the config can be overridden (--help=GROUP lists the options of a group, say
--help=flow, --help=model.sit or --help=sampler; --help=all lists all, as docs/options.md does):
  --config.space.path=linear          the Euclidean baseline, all else identical
  --config.flow.steps=2000            train longer: goes on where the schedule is constant, else
                                      in a new --workdir with --from_run=OLD_WORKDIR
  --config.sampler.guidance=1.5       guidance scale; 1 is off and halves the cost
  --config.mesh.fsdp=4                shard parameters over 4 devices

the run folder: config.json, metrics.jsonl, tensorboard/, checkpoints/, samples/*.png,
report.html (open it in a browser) and results.json.
"""


@joins_processes
def main(argv: list[str]) -> None:
    for group in (text.removeprefix("--help=") for text in argv if text.startswith("--help=")):
        print(help_of(group))
        return
    flags = Parser(__doc__.split("\n\n")[0], EPILOG)
    flags.add_argument(
        "--config",
        type=user_path,
        required=True,
        help="a file, a name in configs/, or config.json of a run",
    )
    flags.add_argument(
        "--workdir", type=user_path, default="", help="the run folder; resumed if it exists"
    )
    flags.add_argument(
        "--from_run", type=user_path, default="", metavar="W",
        help="take the finished stages of run W that this config would train to the same weights",
    )  # fmt: skip
    flags.add_argument(
        "--dry_run",
        action="store_true",
        help="print data, shapes, parameters, bytes per device, shardings and steps, and stop",
    )
    arguments, config = parse_with_config(flags, argv)

    # Slow imports come after the flags, so that --help and wrong flags answer at once.
    from sphere_jax.common.processes import start_processes
    from sphere_jax.distribution.mesh import configured_mesh

    start_processes()
    mesh = configured_mesh(config.mesh)
    if arguments.dry_run:
        from sphere_jax.runs.plan import print_plan

        print_plan(config, mesh)
        return

    from sphere_jax.common.errors import UserError
    from sphere_jax.common.folder_lock import only_writer
    from sphere_jax.runs.run import open_run

    if not arguments.workdir:
        raise UserError("--workdir is missing; name a folder for the run, say runs/first.")
    run = open_run(config, Path(arguments.workdir), mesh)
    with only_writer(run.workdir):
        _train(run, arguments.from_run)


def _train(run, from_run: str) -> None:
    from sphere_jax.runs.scoring import Scorer, score_run
    from sphere_jax.runs.sharing import take_stages
    from sphere_jax.runs.stages import start, train_stages
    from sphere_jax.training.run_log import RunLog

    scorer = Scorer(run)  # raises for what is missing before anything trains
    start(run)
    if from_run:
        take_stages(run, Path(from_run))
    log = RunLog(run.workdir)
    try:
        for line in run.classes.lines():
            log.print(line)
        train_stages(run, log, scorer.point_of_curve if scorer.scores else None)
        score_run(run, log, scorer)
    finally:
        log.close()


if __name__ == "__main__":
    run_command(main)
