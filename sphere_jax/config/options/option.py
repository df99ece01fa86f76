"""What an option is."""

import dataclasses


def option(default, low=None, high=None):
    """A dataclass field with an inclusive range."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})
