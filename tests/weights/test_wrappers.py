"""What trainers put around weights, on arrays: no file and no PyTorch."""

import numpy as np
import pytest

from sphere_jax.weights.wrappers import unwrapped, weights_in

WEIGHTS = {"a.weight": np.ones((2, 3)), "b.c.bias": np.ones(2)}
OTHER = {name: 0 * value for name, value in WEIGHTS.items()}
NUMBER = np.array(0.9)


def is_array(value):
    return isinstance(value, np.ndarray)


def under(prefix, tensors=WEIGHTS):
    return {prefix + name: value for name, value in tensors.items()}


def same(found, expected=WEIGHTS):
    assert found.keys() == expected.keys()
    assert all(found[name] is expected[name] for name in expected)


@pytest.mark.parametrize(
    ("content", "inside"),
    [
        (WEIGHTS, ""),
        (WEIGHTS | {"epoch": 3}, ""),
        ({"model": OTHER, "ema": WEIGHTS}, "ema"),
        ({"model": WEIGHTS, "ema": {}}, "model"),
        ({"model": OTHER, "ema": {"module": WEIGHTS, "decay": 0.9}}, "ema.module"),
        ({"params": OTHER, "params_ema": WEIGHTS}, "params_ema"),
        ({"ema": {"shadow_params": list(WEIGHTS.values())}, "model": WEIGHTS}, "ema.shadow_params"),
        ({"optimizer": {"state": {0: {"exp_avg": NUMBER}}}, "mine": WEIGHTS}, "mine"),
        ({"state_dict": {"generator": WEIGHTS}}, "state_dict.generator"),
    ],
)
def test_the_weights_of_a_checkpoint_are_found_and_averages_come_first(content, inside):
    found, where = weights_in(content, is_array)
    same(found)
    assert where == inside


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no tensors by name"),
        ({"args": {"lr": 1}, "epoch": 2}, "holds no tensors by name but dict, int"),
        ([1, 2], "holds no tensors by name but int"),
        (object(), "holds a object, not tensors by name; .*model.state_dict"),
        ({0: NUMBER, 1: NUMBER}, r"numbers its tensors \(0, 1, ...\)"),
        ({"one": WEIGHTS, "two": WEIGHTS}, "several sets of tensors, 'one', 'two'"),
        ({"ema": {"shadow_params": [NUMBER]}, "model": WEIGHTS}, "averages without names"),
        ({"ema": {"shadow_params": list(WEIGHTS.values())}}, "averages without names"),
    ],
)
def test_what_is_ambiguous_is_refused(content, words):
    with pytest.raises(ValueError, match=words):
        weights_in(content, is_array)


@pytest.mark.parametrize(
    "entries",
    [
        under("module."),
        under("module._orig_mod.model."),
        {"a._orig_mod.weight": WEIGHTS["a.weight"], "b.c.bias": WEIGHTS["b.c.bias"]},
        {"n_averaged": NUMBER, **under("module.")},
        {"initted": NUMBER, "step": NUMBER, **under("online_model.", OTHER), **under("ema_model.")},
        {"model_ema.decay": NUMBER, **under("model.", OTHER), **under("model_ema.")},
        # of LDM: the names of averages have no dots
        under("model.", OTHER)
        | {"model_ema.num_updates": NUMBER, "model_ema.aweight": WEIGHTS["a.weight"],
           "model_ema.bcbias": WEIGHTS["b.c.bias"]},
    ],
)  # fmt: skip
def test_wrappers_are_taken_off_and_averages_are_taken(entries):
    same(unwrapped(entries))


@pytest.mark.parametrize(
    "entries",
    [
        WEIGHTS,
        WEIGHTS | {"decay": NUMBER},  # a parameter of that name
        under("encoder.") | under("model_ema.", OTHER),  # averages of something else beside them
        {"model.a": NUMBER, "b": NUMBER},
    ],
)
def test_other_names_stay(entries):
    same(unwrapped(entries), entries)


def test_a_name_in_a_wrapper_and_without_it_is_refused():
    with pytest.raises(ValueError, match="holds 'a.weight' more than once"):
        unwrapped({"a.weight": NUMBER, "a._orig_mod.weight": NUMBER})
