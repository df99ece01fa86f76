"""10,000 spoilt files and options: a result or one sentence, within 10 s of the processor and
60 s of the clock (fuzzing.py says why both), and no code of theirs is run.
`python tests/drills/fuzzing.py KIND CASES SEED FOLDER CASE` repeats one."""

import os
import subprocess
import sys
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import tiny_run

SEED = int(os.environ.get("DRILL_SEED", "0"))
CASES = {
    "arrays": 2500, "pictures": 1800, "options": 1500, "weights": 1800, "records": 1400,
    "converted": 1000,
}  # fmt: skip


@pytest.mark.slow  # 2 minutes, all of them
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", CASES)
def test_spoilt_input(kind, tmp_path):
    script = Path(__file__).with_name("fuzzing.py")
    line = [sys.executable, str(script), kind, str(CASES[kind]), str(SEED), str(tmp_path / "f")]
    more = {"PYTHONPATH": str(tiny_run.ROOT), "SPHERE_JAX_LISTINGS": str(tmp_path / "listings")}
    env = tiny_run.environment() | more
    found = subprocess.run(line, cwd=tiny_run.ROOT, env=env, capture_output=True, text=True)
    case = tmp_path / "f" / f"{kind}.case"  # the last one, if the process has crashed
    said = f"{found.stdout[-6000:]}\n{found.stderr[-2000:]}\n{case}"
    assert found.returncode == 0 and f"{kind}: {CASES[kind]} cases" in found.stdout, said


def test_a_few_cases_of_each_kind_of_file(tmp_path):
    """The quick part of the same."""
    for kind in ("arrays", "pictures", "records", "weights", "converted"):
        cases = fuzzing.KINDS[kind](np.random.default_rng(SEED))
        for case in range(12):
            rng, folder = np.random.default_rng([SEED, case]), tmp_path / f"{kind}-{case}"
            folder.mkdir()
            cases.make(folder, rng)
            assert fuzzing.judged(cases, folder, rng) == "", f"{kind} {case}, seed {SEED}"
