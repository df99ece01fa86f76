"""A whole comparison of two arms in two seeds: what it checks, leaves behind and survives."""

import html
import json
import re
import shlex
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_run
from refusals import refusal_of
from scipy import stats

from sphere_jax import compare
from sphere_jax.runs.reporting import curve_rows
from sphere_jax.studies.comparing import running
from sphere_jax.training.run_log import read_rows

TINY = [
    *tiny_run.FLAGS,
    "--config.stages=vae,flow",
    "--config.model.depth=1",
    "--config.vae.steps=2",
    "--config.flow.steps=6",
    "--config.flow.preview_every=6",
    "--config.flow.checkpoint_every=2",
    "--config.sampler.steps=2",
    "--config.evaluation.samples=20",
    "--config.evaluation.every=2",
    "--config.evaluation.curve_samples=10",
    "--config.evaluation.classifier_steps=5",
]
ARMS = ["--arm=our slerp:space.path=slerp", "--arm=chord:space.path=nlerp", "--seeds=0,1"]
DISTANCE = "frechet_distance_small_classifier"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare") / "all"
    compare.main([*TINY, *ARMS, f"--workdir={root}"])
    return root


@pytest.fixture
def copied(compared, tmp_path):
    return shutil.copytree(compared, tmp_path / "all")


def refusal(*flags) -> str:
    return refusal_of(compare.main, [str(flag) for flag in flags])


def summary(root):
    return json.loads((root / "comparison.json").read_text())


def curve(workdir):
    """Every scored step once: step, images and scores without the time that they took."""
    rows = curve_rows(read_rows(workdir / "metrics.jsonl"), "flow")
    return [{k: v for k, v in row.items() if k != "training_seconds"} for row in rows]


@pytest.mark.slow
def test_arms_share_what_they_have_in_common(compared):
    assert sorted(path.name for path in compared.iterdir() if path.suffix != ".png") == [
        ".lock", "comparison.html", "comparison.json", "comparison.md",
        "seed0-chord", "seed0-our-slerp", "seed1-chord", "seed1-our-slerp",
    ]  # fmt: skip

    def weights(arm, stage, step):
        folder = compared / arm / "checkpoints" / stage / str(step) / "ema"
        return jax.tree.leaves(ocp.StandardCheckpointer().restore(folder))

    pairs = list(
        zip(*(weights(f"seed0-{a}", "vae", 2) for a in ("chord", "our-slerp")), strict=True)
    )
    assert all(np.array_equal(a, b) for a, b in pairs)
    pairs = list(
        zip(*(weights(f"seed0-{a}", "flow", 6) for a in ("chord", "our-slerp")), strict=True)
    )
    assert any(np.any(a != b) for a, b in pairs)


@pytest.mark.slow
def test_the_page_names_every_arm_and_needs_nothing_else(compared):
    page = (compared / "comparison.html").read_text()
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for words in (
        "our slerp", "chord", "While training", "Time to a target", "Against our slerp", "Samples",
        "Matched", "data order", "space.path: 'nlerp'", "95% t-intervals", "real images",
        "± 95% interval",
    ):  # fmt: skip
        assert words in text, words
    assert page.count("data:image/png;base64,") == 4  # two of curves, samples of two seeds
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)
    own = (compared / "seed0-chord" / "report.html").read_text()
    assert "Scores of 10 samples by the weights of these steps" in own


@pytest.mark.slow
def test_the_numbers_of_the_page(compared):
    found = summary(compared)
    assert found["finished"] == [4, 4] and found["baseline"] == "our slerp"
    for seed in (0, 1):
        results = json.loads((compared / f"seed{seed}-chord" / "results.json").read_text())
        for name, value in results["metrics"].items():
            assert found["arms"]["chord"][name][seed] == value
        rows = found["curves"]["chord"][str(seed)]
        assert [row["step"] for row in rows] == [2, 4, 6]
        assert [row["images_trained"] for row in rows] == [32, 64, 96]
        last = found["curves"]["our slerp"][str(seed)][-1]
        assert found["target"]["values"][str(seed)] == last[DISTANCE]
        values = [row[DISTANCE] for row in found["curves"]["our slerp"][str(seed)]]
        reached = next(i for i in range(3) if values[i] <= values[-1])
        before, at = values[max(reached - 1, 0)], values[reached]
        part = (before - values[-1]) / (before - at) if before != at else 1
        steps = found["target"]["steps"]["our slerp"][str(seed)]
        assert steps == pytest.approx(max(2 * reached, 2) + 2 * (part if reached else 0))
    assert found["target"]["metric"] == DISTANCE
    of_seed = [
        [found["arms"][arm][DISTANCE][seed] for arm in ("chord", "our slerp")] for seed in (0, 1)
    ]
    difference = found["differences"]["chord"][DISTANCE]
    assert difference["mean"] == pytest.approx(np.mean([a - b for a, b in of_seed]))
    assert difference["seeds"] == 2
    test = stats.ttest_rel(*zip(*of_seed, strict=True))
    if test.pvalue > 0.05:
        assert difference["verdict"] == "not decided"
    else:
        assert difference["verdict"] == ("better" if difference["mean"] < 0 else "worse")
    low, high = test.confidence_interval(0.95)
    assert difference["half_width"] == pytest.approx((high - low) / 2)
    items = {"training data", "data order", "initial weights", "training noise", "sampling noise"}
    assert found["matched"]["chord"] == dict.fromkeys((*items, "reference"), "yes")
    table = (compared / "comparison.md").read_text()
    assert "| our slerp |" in table and "| chord |" in table and "| real images |" in table
    pictures = re.findall(r"\]\((comparison-\d+\.png)\)", table)
    assert sorted(pictures) == sorted(path.name for path in compared.glob("*.png")) != []
    assert "2 seeds (0, 1): mean ± standard deviation; NFE 4." in table
    (command,) = re.findall(r"^python -m sphere_jax.compare .*$", table, re.MULTILINE)
    assert shlex.split(command)[3:] == [*TINY, *ARMS, f"--workdir={compared}"]


@pytest.mark.slow
def test_running_again_trains_nothing(copied, capsys):
    before = (copied / "comparison.json").read_text()
    compare.main([*TINY, *ARMS, f"--workdir={copied}", "--baseline=chord", "--target=frechet:1e9"])
    assert capsys.readouterr().out.count("finished before, skipped") == 4
    found = summary(copied)
    assert found["baseline"] == "chord" and found["differences"].keys() == {"our slerp"}
    assert found["target"]["steps"]["our slerp"] == {"0": 2.0, "1": 2.0, "speed_up": [1.0, [1, 1]]}
    compare.main([*TINY, *ARMS, f"--workdir={copied}"])
    assert (copied / "comparison.json").read_text() == before


@pytest.mark.slow
def test_an_interrupted_comparison_resumes_to_the_same_rows(compared, copied, monkeypatch, capsys):
    """Stopped after a scored step without a checkpoint, with an arm not started."""
    shutil.rmtree(copied / "seed1-chord")
    arm = copied / "seed1-our-slerp"
    for file in (arm / "results.json", arm / "stages" / "flow.npz"):
        file.unlink()
    tiny_run.edit_json(arm / "stages" / "flow.json", finished=False)
    shutil.rmtree(arm / "checkpoints" / "flow" / "6")
    (arm / "checkpoints" / "flow.crc32" / "6.json").unlink()
    trained, train_arm = [], running.train_arm

    def watched(run, *given):
        trained.append(run.workdir.name)
        if len(trained) == 2:  # finished arms are shown and stay
            assert summary(copied)["finished"] == [3, 4]
            page = (copied / "comparison.html").read_text()
            assert "3 of 4 arms" in page and "our slerp" in page
        return train_arm(run, *given)

    monkeypatch.setattr(running, "train_arm", watched)
    compare.main([*TINY, *ARMS, f"--workdir={copied}"])
    assert trained == ["seed1-our-slerp", "seed1-chord"]
    message = capsys.readouterr().out
    assert "flow: resuming from step 4" in message and "vae: shared with" in message
    assert "arm 4 of 4: arm chord, seed 1; 3 done, about" in message
    for name in trained:
        assert curve(copied / name) == curve(compared / name)
    before, after = summary(compared), summary(copied)
    assert after["arms"] == before["arms"] and after["differences"] == before["differences"]


@pytest.mark.slow
def test_unmatched_arms_are_refused(copied):
    again = [*TINY, *ARMS, f"--workdir={copied}"]
    file = copied / "seed1-chord" / "matched.json"
    true = file.read_text()
    tiny_run.edit_json(file, **{"data order": "0" * 16})
    message = refusal(*again)
    assert "Arms 'chord' and 'our slerp' of seed 1" in message and "data order differ" in message
    file.unlink()  # measured again
    compare.main(again)
    assert file.read_text() == true


@pytest.mark.slow
def test_arms_that_only_sample_otherwise_share_weights_but_no_curve(copied, capsys):
    more = "--arm=three steps:space.path=slerp,sampler.steps=3"
    compare.main([*TINY, *ARMS[:2], more, "--seeds=0", f"--workdir={copied}"])
    out = capsys.readouterr().out
    assert "vae: shared with" in out and "flow: shared with seed0-our-slerp" in out
    assert curve(copied / "seed0-three-steps") == []
    found = summary(copied)
    assert found["curves"]["three steps"] == {"0": []} and "three steps" in found["arms"]
    assert "three steps" not in found["target"]["steps"]
    assert "NFE 4, 6." in (copied / "comparison.md").read_text()
    assert "One seed: there is no interval" in (copied / "comparison.html").read_text()


@pytest.mark.slow
def test_arms_in_another_decoder_share_the_generator_but_no_curve(copied, capsys):
    """A flow never reads the decoder that a stage before it finetunes."""
    tuned = "--arm=tuned:space.path=slerp,stages=(vae,decoder,flow)"
    compare.main([*TINY, *ARMS[:1], tuned, "--seeds=0", f"--workdir={copied}"])
    out = capsys.readouterr().out
    assert "flow: shared with seed0-our-slerp" in out and "decoder: shared" not in out
    own, other = (copied / f"seed0-{arm}" / "stages" for arm in ("tuned", "our-slerp"))
    content, before = (json.loads((folder / "flow.json").read_text()) for folder in (own, other))
    assert content["depends"]["earlier stages"] == ["vae", "decoder"]
    assert content["depends"].keys() > before["depends"].keys()
    assert content["metrics"] == before["metrics"]
    found = summary(copied)
    assert found["curves"]["tuned"] == {"0": []}  # its images come from another decoder
    assert found["arms"]["tuned"] != found["arms"]["our slerp"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--vary=space.path",), "must be KEY=VALUE,VALUE"),
        (("--vary=space.path=slerp,slrp",), "config.space.path='slrp' must be one of"),
        (("--vary=space.pth=slerp",), "did you mean 'path'?"),
        ((), "There are no arms"),
        (("--vary=space.path=slerp", "--seeds=a"), "--seeds=a must be numbers"),
        (("--vary=space.path=slerp", "--seeds=1,1"), "must be different"),
        (("--vary=seed=0,1",), "give them by --seeds"),
        (("--vary=space.path=slerp", "--baseline=linear"), "is none of the arms: 'slerp'."),
        (("--vary=space.path=slerp", "--target=loss:3"), "must be METRIC:VALUE"),
        (("--vary=space.path=slerp", "--target=frechet_distance"), "must be METRIC:VALUE"),
        (
            ("--vary=space.path=slerp", "--target=recall:1", "--config.evaluation.every=0"),
            "--target needs scores while training",
        ),
        (("--vary=space.path=slerp", "--config.evaluation.samples=0"), "A comparison needs scores"),
        (("--vary=space.path=slerp", "--config.stages=vae"), "A comparison needs scores"),
        (("--vary=data.source=digits,npz",), "There is no file ''"),
        (
            ("--vary=decoder.lpips=a.pth,b.pth", "--config.stages=vae,decoder,flow"),
            "a.pth is not there",
        ),
        (
            ("--vary=space.path=slerp", "--config.evaluation.features=inception_fid"),
            "config.evaluation.pretrained is empty",
        ),
        (
            (
                "--vary=space.path=slerp",
                "--config.evaluation.features=inception_fid",
                "--config.evaluation.pretrained=none.safetensors",
            ),
            "none.safetensors",
        ),
    ],
)
def test_compare_refusals_before_anything_trains(tmp_path, flags, words):
    root = tmp_path / "root"
    assert words in refusal(*TINY, f"--workdir={root}", *flags)
    assert not root.exists()


@pytest.mark.slow
def test_folders_of_other_content(copied, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("")
    vary = "--vary=space.path=slerp"
    message = refusal(*TINY, f"--workdir={mine}", vary)
    assert "thesis.txt, which no comparison wrote; give another --workdir" in message
    arm = f"--workdir={copied / 'seed0-chord'}"
    assert "which no comparison wrote" in refusal(*TINY, arm, vary)
    for other in ("--config.evaluation.samples=21", "--config.space.retraction=renormalize"):
        message = refusal(*TINY, *ARMS, f"--workdir={copied}", other)
        assert "was run with another config" in message


@pytest.mark.slow
def test_finished_arms_are_reused_if_no_weight_changes(copied, capsys):
    compare.main([*TINY, *ARMS, f"--workdir={copied}", "--config.flow.log_every=7"])
    assert capsys.readouterr().out.count("finished before, skipped") == 4
    file = copied / "seed0-chord" / "stages" / "vae.json"
    depends = json.loads(file.read_text())["depends"]
    depends["data fingerprint"] = f"f{depends['data fingerprint']}"
    tiny_run.edit_json(file, depends=depends)
    message = refusal(*TINY, *ARMS, f"--workdir={copied}", "--config.flow.log_every=8")
    assert "holds stage 'vae' with data fingerprint='f" in message
