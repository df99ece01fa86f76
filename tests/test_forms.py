"""What JSON files hold, checked before it is used."""

import pytest

from sphere_jax.common.forms import misfit

FORM = {
    "count": int,
    "means": [float],
    "parts?": {str: {"name": str}},
    "kind": ("a", "b").__contains__,
}
WHOLE = {"count": 3, "means": [1, 0.5], "kind": "a", "more": None}


def test_what_fits():
    assert misfit(WHOLE, FORM) == misfit(WHOLE | {"parts": {"x": {"name": "y"}}}, FORM) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": True}, "'count' is no int"),
        ({"count": 1.0}, "'count' is no int"),
        ({"means": 1.0}, "'means' is no list"),
        ({"means": [1, "2"]}, "an item of 'means' is no float"),
        ({"parts": []}, "'parts' is no object"),
        ({"parts": {"x": {}}}, "'name' is missing"),
        ({"parts": {"x": {"name": 1}}}, "'name' is no str"),
        ({"kind": "c"}, "'kind' is none that is known"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    assert misfit(WHOLE | change, FORM) == words


def test_what_is_missing():
    assert misfit({}, FORM) == "'count' is missing" and misfit([], FORM) == "it is no object"
