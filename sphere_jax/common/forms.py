"""The form of what JSON files hold, checked before it is used.

A form is a type (`float` takes whole numbers as well), a function of a value, a list of one form
for all items, a dictionary of keys, of which those that end in "?" may be absent, or `{str: form}`
for any keys.
"""

from collections.abc import Callable, Mapping
from typing import Any

Form = type | Callable[[Any], bool] | list | Mapping


def misfit(value: Any, form: Form, name: str = "it") -> str:
    """Which part of `value` has another form, as "'shards' is missing"; "" if none has."""
    if isinstance(form, Mapping):
        if not isinstance(value, dict):
            return f"{name} is no object"
        every = form.get(str)
        for key, part in (dict.fromkeys(value, every) if every else form).items():
            name = key if every else key.removesuffix("?")
            if name not in value and name == key:
                return f"'{name}' is missing"
            if name in value and (wrong := misfit(value[name], part, f"'{name}'")):
                return wrong
        return ""
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{name} is no list"
        found = (misfit(item, form[0], f"an item of {name}") for item in value)
        return next(filter(None, found), "")
    if isinstance(form, type):
        fits = type(value) is form or (form is float and type(value) is int)
        return "" if fits else f"{name} is no {form.__name__}"
    return "" if form(value) else f"{name} is none that is known"
