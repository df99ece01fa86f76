"""torchvision beside a CPU build of torch, for originals that import it: timm, pytorch-fid, lpips.

PyPI's torchvision is built against CUDA's torch: its C++ operators (nms, roi_align) do not load
beside the CPU build, and registering their shapes at import fails. The networks need none of them.
"""

import sys

import torch


def import_torchvision():
    """Imports torchvision without its C++ operators and returns it.

    Raises:
      ImportError: torchvision is not installed (`pip install --no-deps torchvision==0.28.0`).
    """
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"]
    register_fake = torch.library.register_fake

    def register_others(op, *args, **kwargs):
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        return register_fake(op, *args, **kwargs)

    torch.library.register_fake = register_others
    try:
        import torchvision
    finally:
        torch.library.register_fake = register_fake
    return torchvision


def importorskip(name):
    """`pytest.importorskip` for a package that imports torchvision."""
    import pytest

    try:
        import_torchvision()
    except ImportError as error:
        pytest.skip(f"torchvision does not import: {error}")
    return pytest.importorskip(name)
