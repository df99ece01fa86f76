"""Starts commands within milliseconds: a process that has imported everything, and forks.

Reads one JSON object a line: `argv` (command first), `env`, `out` (files OUT.out and OUT.err take
what is printed), `hooks` (functions of hooks.py with their arguments, called first). Answers with
the child's process id and, once it has ended, its exit code.
"""

import gc
import importlib
import json
import os
import sys

import hooks


def child(job: dict) -> None:
    os.environ.update(job["env"])
    for number, name in ((1, "out"), (2, "err")):
        target = os.open(f"{job['out']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    for name, *arguments in job["hooks"]:
        getattr(hooks, name)(*arguments)
    command, *sys.argv[1:] = job["argv"]
    from sphere_jax.cli import run_command

    run_command(importlib.import_module(f"sphere_jax.{command}").main)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    for name in (
        "main", "sample", "prepare", "evaluate", "runs.scoring", "runs.latent_caching",
        "data.record_writer", "runs.sharing", "runs.stages", "runs.run",
        "training.loop", "evaluation.page", "distribution.mesh",
    ):  # fmt: skip
        importlib.import_module(f"sphere_jax.{name}")
    for name in (
        "matplotlib.pyplot", "tensorboardX", "orbax.checkpoint", "grain.python",
        "sklearn.svm", "sklearn.metrics.pairwise",
    ):  # fmt: skip
        importlib.import_module(name)
    hooks.quick_peak()
    gc.freeze()  # no child looks through what was imported, nor copies its pages for that
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if not (process := os.fork()):
            try:
                child(job)
            except BaseException:
                import traceback

                traceback.print_exc()
            os._exit(1)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
