"""Arms from flags and files, and which differences a config explains."""

from pathlib import Path

import pytest
from refusals import refusal_of

from sphere_jax.config.config_files import load_config
from sphere_jax.studies.comparing.arms import (
    Arm,
    differing_keys,
    file_arms,
    named_arm,
    plan,
    product,
    split_values,
    vary_arms,
)
from sphere_jax.studies.comparing.matched import check_matched, digest, explanation

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "configs" / "mnist_slerp.py")


def test_commas_inside_parentheses_do_not_count():
    assert split_values("a,(1,2), b") == ["a", "(1,2)", "b"]
    assert named_arm("ours: stages=(vae,flow),space.path=slerp") == Arm(
        "ours", {"stages": "(vae,flow)", "space.path": "slerp"}
    )
    assert named_arm("as it is:") == Arm("as it is", {})


def test_several_varied_keys_are_a_product():
    arms = vary_arms(["space.path=linear,slerp", "flow.steps=5,6"])
    assert [arm.name for arm in arms] == [
        "path=linear, steps=5", "path=linear, steps=6", "path=slerp, steps=5", "path=slerp, steps=6"
    ]  # fmt: skip
    assert arms[1].values == {"space.path": "linear", "flow.steps": "6"}
    assert arms[1].folder(3) == "seed3-path=linear-steps=6"
    assert [arm.name for arm in vary_arms(["space.path=linear,slerp"])] == ["linear", "slerp"]
    both = product([named_arm("a:seed=1")], vary_arms(["flow.steps=5,6"]))
    assert [arm.name for arm in both] == ["a, 5", "a, 6"] and both[0].values["flow.steps"] == "5"


def test_plans_are_checked_whole():
    found = plan(CONFIG, ["--config.flow.steps=7"], vary_arms(["space.path=linear,slerp"]), [0, 4])
    assert list(found) == [(0, "linear"), (0, "slerp"), (4, "linear"), (4, "slerp")]
    assert found[4, "linear"].seed == 4 and found[4, "linear"].stage("flow").steps == 7
    assert differing_keys(found[0, "linear"], found[0, "slerp"]) == {
        "space.path": ("linear", "slerp")
    }

    def words(*arms):
        return refusal_of(plan, CONFIG, [], arms, [0])

    one = named_arm("a b:space.path=slerp")
    assert "have the same config" in words(one, named_arm("c:space.path=slerp"))
    assert "would share the folder" in words(one, named_arm("a-b:space.path=linear"))
    assert "by --seeds" in words(named_arm("a:seed=1"))
    assert "needs scores" in words(named_arm("a:evaluation.samples=0"))
    other = "evaluation.features=inception_fid,evaluation.pretrained=F.safetensors"
    message = words(one, named_arm(f"c:{other}"))
    assert "config.evaluation.features is inception_fid and small_classifier." in message


def test_flag_refusals(tmp_path):
    assert "KEY=VALUE,VALUE" in refusal_of(vary_arms, ["space.path"])
    assert "each KEY once" in refusal_of(vary_arms, ["flow.steps=1", "flow.steps=2"])
    for text in ("space.path=linear", ":space.path=linear", "a:space.path", "a:stages=vae,flow"):
        assert "with tuples in parentheses" in refusal_of(named_arm, text)
    file = tmp_path / "arms.py"
    base = load_config(CONFIG)
    words = refusal_of(file_arms, str(file), base)
    assert (
        "There is no file" in words
        and "known: flow_sphere, flow_sphere_start, paths, slerp_ablation, slerp_grid" in words
    )
    (tmp_path / "arms.txt").write_text("")
    words = refusal_of(file_arms, str(tmp_path / "arms.txt"), base)
    assert "must be a Python file with get_arms()" in words
    file.write_text("def get_arms(config): return {'a': 3}")
    assert "must return {name: {key: value}}" in refusal_of(file_arms, str(file), base)
    file.write_text("def get_arms(config): return 1 / 0")
    assert "does not run (ZeroDivisionError" in refusal_of(file_arms, str(file), base)


@pytest.mark.parametrize(
    ("name", "tuned", "plain"), [("slerp_ablation", 4, 4), ("slerp_grid", 22, 11), ("paths", 8, 5)]
)
def test_the_shipped_arms(name, tuned, plain):
    file = str(ROOT / "configs" / "arms" / f"{name}.py")
    for stages, count in (("vae,decoder,flow", tuned), ("vae,flow", plain)):
        shared = [f"--config.stages={stages}"]
        arms = file_arms(file, load_config(CONFIG, shared))
        assert len(plan(CONFIG, shared, arms, [0])) == count


def config_of(*overrides):
    return load_config(CONFIG, [f"--config.{o}" for o in overrides])


@pytest.mark.parametrize(
    ("item", "override", "explained"),
    [
        ("data order", "flow.batch_size=32", ["flow.batch_size"]),
        ("data order", "flow.optimizer.learning_rate=1.0", []),
        ("data order", "space.path=linear", []),
        ("data order", "stages=vae,decoder,flow", []),
        ("data order", "data.threads=4", []),
        ("data order", "data.num_classes=11", []),
        ("data order", "data.path=other", ["data.path"]),
        ("training data", "data.threads=4", []),
        ("initial weights", "model.width=96", ["model.width"]),
        ("initial weights", "flow.batch_size=32", []),
        ("initial weights", "stages=vae,decoder,flow", []),
        ("initial weights", "data.path=other", []),
        ("sampling noise", "tokenizer.latent_channels=4", ["tokenizer.latent_channels"]),
        ("sampling noise", "sampler.steps=3", []),
        ("training noise", "model.width=96", []),
        ("training noise", "stages=vae,decoder,flow", []),
        ("reference", "evaluation.samples=7", ["evaluation.samples"]),
    ],
)
def test_explanations_of_a_difference(item, override, explained):
    plain = config_of("stages=vae,flow")
    assert explanation(item, plain, config_of("stages=vae,flow", override)) == explained


def test_options_of_a_method_that_shape_its_networks():
    """Arms of flow-sphere with another refiner start from other weights, those with another start
    of the flow from the same."""
    base = str(ROOT / "configs" / "mnist_flow_sphere.py")
    arms = file_arms(str(ROOT / "configs" / "arms" / "flow_sphere.py"), load_config(base))
    configs = {name: config for (_, name), config in plan(base, [], arms, [0]).items()}
    found = {n: explanation("initial weights", configs["mix"], c) for n, c in configs.items()}
    assert found["from noise, no context"] == ["flow_sphere.context"]
    assert found["from noise"] == found["no flow gradients"] == found["decode alone"] == []


def test_a_difference_that_nothing_explains_is_refused(tmp_path):
    baseline = ("slerp", {"data order": "1", "initial weights": "2"}, config_of())

    def check(items, *overrides):
        return check_matched(tmp_path, 3, ("other", items, config_of(*overrides)), baseline)

    same = {"data order": "1", "initial weights": "2"}
    assert check(same, "space.path=linear") == dict.fromkeys(same, "yes")
    wider = {"data order": "1", "initial weights": "9"}
    found = check(wider, "model.width=96", "space.path=linear")
    assert found == {"data order": "yes", "initial weights": "no: model.width"}
    words = refusal_of(check, wider, "space.path=linear")
    assert "Arms 'other' and 'slerp' of seed 3" in words and "initial weights differ" in words


def test_data_elsewhere_explain_another_order_only_where_they_are_other_data(tmp_path):
    baseline = ("here", {"training data": "1", "data order": "1"}, config_of())
    there = config_of("data.path=there")

    def check(items):
        return check_matched(tmp_path, 0, ("there", items, there), baseline)

    found = check({"training data": "2", "data order": "2"})
    assert set(found.values()) == {"no: data.path"}
    assert "data order differ" in refusal_of(check, {"training data": "1", "data order": "2"})


def test_a_digest_is_of_every_byte():
    import jax
    import numpy as np

    tree = {"a": np.zeros(3, np.float32), "b": [np.ones(2, np.int32)]}
    assert digest(tree) == digest({"b": tree["b"], "a": tree["a"].copy()})
    others = [
        {"a": np.float32([0, 0, 1e-30]), "b": tree["b"]},
        {"a": np.zeros(3, np.float64), "b": tree["b"]},
        {"a": np.zeros((3, 1), np.float32), "b": tree["b"]},
        {"c": tree["a"], "b": tree["b"]},
    ]
    assert digest(tree) not in {digest(other) for other in others}
    keys = jax.random.split(jax.random.key(0), 2)
    assert digest(keys) == digest(jax.random.split(jax.random.key(0), 2)) != digest(keys[:1])
