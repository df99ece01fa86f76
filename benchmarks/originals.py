"""PyTorch originals that stand in tests/, for benchmarks that time them.

Modules there are imported by their own names, as pytest does: torch-fidelity installs a package
`tests`, which would hide the folder.
"""

import importlib
import sys
from types import ModuleType

from benchmarks.smoke import ROOT

FOLDER = str(ROOT / "tests")


def from_tests(name: str) -> ModuleType:
    """The module `name` of tests/. Raises ImportError for a package that it needs."""
    if FOLDER not in sys.path:
        sys.path.append(FOLDER)
    return importlib.import_module(name)
