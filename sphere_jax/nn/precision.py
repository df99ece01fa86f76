"""The precision of matrix products, where it is not the user's to choose."""

from contextlib import AbstractContextManager

import jax


def exact_products() -> AbstractContextManager:
    """Products and convolutions of float32 arrays in float32, and so are their gradients, whatever
    the user set and whatever the device does by default (TPU: one pass of bfloat16).

    For what scores are made of, which are compared to the third digit. Enter it inside the traced
    function, so that the function is exact wherever it is called.
    """
    return jax.default_matmul_precision("highest")
