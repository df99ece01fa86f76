"""The page, from outcomes written by hand."""

import json
from dataclasses import replace

import pytest
import tiny_run

from sphere_jax.config.config_files import load_config
from sphere_jax.studies.comparing.arms import Arm
from sphere_jax.studies.comparing.comparison_page import write_page
from sphere_jax.studies.comparing.outcomes import Comparison, Outcome

ARMS = [
    Arm("plain", {"stages": "(vae,flow)"}),
    Arm("tuned", {}),
    Arm("own", {"decoder.target": "original"}),
]


@pytest.fixture
def comparison(tmp_path):
    path, *flags = [flag.removeprefix("--config=") for flag in tiny_run.FLAGS]
    configs = {(0, a.name): load_config(path, [*flags, *a.overrides(0)]) for a in ARMS}
    results = {
        "nfe": 2, "protocol": {"seed": 0},
        "real_data": {"frechet_distance_a": 1.0, "recall_a": 1.0, "class_agreement": 1.0},
    }  # fmt: skip
    metrics = {"frechet_distance_a": 3.0, "recall_a": 0.5, "class_agreement": 0.25}
    few = {name: value for name, value in metrics.items() if name != "recall_a"}
    found = {"plain": metrics, "tuned": few, "own": metrics}
    outcomes = {(0, a): Outcome(m, results, [], {}, None) for a, m in found.items()}
    return Comparison(tmp_path, "arm", ARMS, [0], configs, "plain", outcomes=outcomes)


def test_a_score_that_some_arms_lack_is_left_out_and_named(comparison):
    table = write_page(comparison)
    header = table.splitlines()[0]
    assert header.count("|") == 4 and "Recall" not in header
    assert table.endswith(
        "Not of every arm, and left out: Recall (real inside generated), a features.\n"
    )


def test_one_seed_has_no_deviation(comparison):
    table = write_page(comparison)
    assert "1 seed (0): one value, without a deviation; NFE 2." in table and "±" not in table
    assert "±" not in (comparison.root / "comparison.md").read_text()


def test_the_command_and_what_arms_share(comparison):
    comparison.command = "python -m sphere_jax.compare '--arm=a b:'"
    write_page(comparison)
    page = (comparison.root / "comparison.md").read_text()
    assert "## Reproduce\n\n```\npython -m sphere_jax.compare '--arm=a b:'\n```" in page
    lines = page.partition("## Reproduce")[2].splitlines()
    assert "flow.steps = 12" in lines and "space.path = 'slerp'" in lines
    assert not [line for line in lines if line.startswith(("stages", "seed", "decoder"))]


def test_one_scored_step_is_a_table_and_no_curve(comparison):
    row = {"step": 6, "training_seconds": 1.0, "recall_a": 0.25}
    found = {key: replace(o, curve=[row]) for key, o in comparison.outcomes.items()}
    write_page(replace(comparison, outcomes=found))
    page = (comparison.root / "comparison.md").read_text()
    section = page.partition("## While training")[2].partition("##")[0]
    assert "| own | 0.250 |" in section and "Step 6." in section and "![" not in section


def test_differences_while_training_are_paired_by_seed_at_each_step(comparison):
    """By hand: differences 3 and 1 at step 6 have mean 2 and half width 12.706 * 1."""
    plain = {0: [(6, 10.0), (12, 4.0)], 1: [(6, 20.0), (12, 8.0)]}
    tuned = {0: [(6, 13.0), (12, 2.0), (18, 1.0)], 1: [(6, 21.0), (12, 6.0)]}
    first, found = comparison.outcomes[0, "plain"], {}
    for arm, curves in (("plain", plain), ("tuned", tuned)):
        for seed, points in curves.items():
            rows = [
                {"step": step, "training_seconds": float(step), "frechet_distance_a": value}
                for step, value in points
            ]
            found[seed, arm] = replace(first, curve=rows)
    configs = comparison.configs | {(1, a): c for (_, a), c in comparison.configs.items()}
    comparison = replace(comparison, seeds=[0, 1], configs=configs, outcomes=found)
    write_page(comparison)
    page = (comparison.root / "comparison.md").read_text()
    section = page.partition("## While training")[2].partition("\n## ")[0]
    assert "| step | tuned |" in section
    assert "| 6 | +2 ± 13: not decided |" in section
    assert "| 12 | -2 ± 0: better |" in section and "| 18 |" not in section
    stored = json.loads((comparison.root / "comparison.json").read_text())
    at_6 = stored["differences_by_step"]["tuned"]["frechet_distance_a"]["6"]
    assert at_6["mean"] == 2.0 and at_6["half_width"] == pytest.approx(12.706, abs=1e-3)
    assert stored["differences_by_step"].get("own") is None


def test_an_extra_stage_is_one_difference_but_varied_values_are_named(comparison):
    write_page(comparison)
    rows = (comparison.root / "comparison.md").read_text().splitlines()
    stages = "stages: ('vae', 'decoder', 'flow')"
    assert "| plain | the baseline |" in rows and f"| tuned | {stages} |" in rows
    assert f"| own | decoder.target: 'original'; {stages} |" in rows
