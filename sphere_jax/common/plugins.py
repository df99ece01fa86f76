"""Methods, tokenizers, networks, feature networks and data sources are found by name, by import.

`find("methods", "METHOD", "flow", ...)` is `METHOD` of `sphere_jax.methods.flow`. A name with a dot
is a module of another package, so that `method="my_package.my_method"` needs no fork. There is no
list of names: what a package holds is what its folder holds.
"""

import difflib
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterable
from typing import Any

from sphere_jax.common.errors import UserError, shortened

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def find(package: str, attribute: str, name: str, where: str) -> Any:
    """The plug-in that `where`, an option, names.

    Raises:
      UserError: there is none of that name (with the nearest known one), or it does not import.
    """
    module = _module(package, name, where)
    found = getattr(module, attribute, None) if module else None
    if found is None and module is not None and "." in name:
        raise UserError(
            f"{where}='{name}' is a module without {attribute}; define {attribute} there."
        )
    if found is None:
        raise UserError(
            f"{where}='{shortened(str(name))}' is not known; "
            f"{nearest(name, known(package, attribute))}"
        )
    return found


def exists(package: str, attribute: str, name: str) -> bool:
    """Whether `find` would find it in this package."""
    if not NAME.fullmatch(str(name)) or "." in name:
        return False
    path = f"sphere_jax.{package}.{name}"
    if importlib.util.find_spec(path) is None:
        return False
    return hasattr(importlib.import_module(path), attribute)


def known(package: str, attribute: str) -> list[str]:
    """The names of all plug-ins of a package here, sorted. Imports all of its modules."""
    folder = importlib.import_module(f"sphere_jax.{package}").__path__
    names = sorted(module.name for module in pkgutil.iter_modules(folder))
    return [name for name in names if exists(package, attribute, name)]


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a name that is not among the known ones."""
    near = difflib.get_close_matches(shortened(str(name)), list(names), n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(names))}."


def _module(package: str, name: str, where: str):
    """The module of that name; None if there is none in this package."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return None
    path = name if "." in name else f"sphere_jax.{package}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if path != error.name and not path.startswith(f"{error.name}."):
            raise UserError(f"{where}='{name}' cannot be imported ({error}).") from error
        if "." in name:
            raise UserError(
                f"{where}='{name}' names no module that Python finds ({error}); install its "
                "package or add its folder to PYTHONPATH."
            ) from error
        return None
    except Exception as error:  # a third-party module may raise anything
        kind = type(error).__name__
        raise UserError(f"{where}='{name}' does not import ({kind}: {error}).") from error
