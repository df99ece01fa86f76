"""Fake gcloud, srun, kubectl and others on PATH, which record their calls.

Each appends its name and arguments to `calls`, then runs what the test gives it to do as a bash
script. The fake Python takes its exit codes from `codes`, one a call, 0 where there are no more.
"""

import os
import shlex
import stat
import subprocess
from pathlib import Path

from tiny_run import ROOT

RECORD = """#!/usr/bin/env bash
name=$(basename "$0") fakes={folder}
{{ printf '%s' "$name"; printf ' %q' "$@"; echo; }} >> "$fakes/calls"
"""
PYTHON = """
code=$(sed -n 1p "$fakes/codes" 2>/dev/null); sed -i 1d "$fakes/codes" 2>/dev/null
if [[ $code == wait ]]; then  # for a signal, as a run that saves when it gets one
  trap 'echo "python TERM" >> "$fakes/calls"; exit 130' TERM
  echo waiting > "$fakes/waiting"
  while :; do sleep 0.05; done
fi
exit "${code:-0}"
"""
SRUN = """
while [[ $1 == --* ]]; do shift; done
"$@" & child=$!
echo $child > "$fakes/step"
trap 'kill -TERM $child' TERM
wait $child; code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
exit $code
"""
SCANCEL = 'kill -TERM "$(cat "$fakes/step")"\n'
NVIDIA = 'for i in 0 1 2 3; do echo "GPU $i: fake"; done\n'
DOCKER = 'while [[ $1 != python ]]; do shift; done; exec "$@"\n'
NONE = ""
TOOLS = {
    "python": PYTHON, "srun": SRUN, "scancel": SCANCEL, "scontrol": NONE, "sbatch": NONE,
    "nvidia-smi": NVIDIA, "docker": DOCKER, "kubectl": NONE, "gcloud": NONE, "sudo": '"$@"\n',
}  # fmt: skip


class FakeTools:
    """A folder of them; `environment` has it first on PATH, and no waits between starts."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        for name, does in TOOLS.items():
            self.does(name, does)
        self.environment = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHON": str(folder / "python"),
            "PAUSE": "0",
            "POLL": "0",
        }

    def does(self, name: str, script: str) -> None:
        file = self.folder / name
        file.write_text(RECORD.format(folder=shlex.quote(str(self.folder))) + script)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def codes(self, *codes: int | str) -> None:
        """What the next calls of Python end with."""
        (self.folder / "codes").write_text("".join(f"{code}\n" for code in codes))

    def calls(self, *names: str) -> list[list[str]]:
        """Name and arguments of every call of these tools, in order."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [call for call in map(shlex.split, lines) if call[0] in names]

    def start(self, script: str, *flags: str, cwd: Path = ROOT, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", ROOT / "launch" / script, *flags],
            cwd=cwd,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
