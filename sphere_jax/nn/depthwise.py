"""A convolution of each channel with one kernel, in the fastest form for the platform."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from sphere_jax.common.shapes import AnyArray, FeatureMaps
from sphere_jax.distribution.placement import platform
from sphere_jax.nn.norms import per_channel

Kernel = Float[AnyArray, "k k 1 width"]
Strided = Float[AnyArray, "batch -(-h//{stride}) -(-w//{stride}) width"]


def depthwise(x: FeatureMaps, kernel: Kernel, stride: int = 1) -> Strided:
    """x (B, h, w, C), kernel (k, k, 1, C), k odd -> (B, ceil(h / stride), ceil(w / stride), C).

    Zero-padded, by one more at the end than at the start where the padding is odd. The result has
    the dtype of x. On CPU it is a sum of k^2 shifted products: the grouped convolution of XLA runs
    at less than 1 GFLOP/s there, and its gradient is slower still.
    """
    return _of_stride_one(x, kernel) if stride == 1 else _forward(x, kernel, stride)


def _forward(x, kernel, stride):
    form = shifted_products if platform() == "cpu" else grouped_convolution
    return form(x, kernel, stride)


@jax.custom_vjp
def _of_stride_one(x, kernel):
    return _forward(x, kernel, 1)


def _backward(saved, gradient):
    """The gradient in x is the same operation again, which automatic transposition misses."""
    x, kernel = saved
    (of_kernel,) = jax.vjp(lambda k: _forward(x, k, 1), kernel)[1](gradient)
    return _of_stride_one(gradient, kernel[::-1, ::-1]), of_kernel


_of_stride_one.defvjp(lambda x, kernel: (_forward(x, kernel, 1), (x, kernel)), _backward)


def grouped_convolution(x: FeatureMaps, kernel: Kernel, stride: int = 1) -> Strided:
    """`depthwise` as a convolution of XLA; the same shapes."""
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(stride, stride),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def shifted_products(x: FeatureMaps, kernel: Kernel, stride: int = 1) -> Strided:
    """`depthwise` as a float32 sum, which compiles to one pass over x; the same shapes."""
    size, taps = kernel.shape[0], kernel.astype(jnp.float32)
    edges = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    padded = jnp.pad(x, ((0, 0), *edges, (0, 0)))
    height, width = (stride * ((n - 1) // stride) + 1 for n in x.shape[1:3])  # spanned by a shift
    total = sum(
        padded[:, i : i + height : stride, j : j + width : stride]
        * per_channel(taps[i, j, 0], x.ndim)
        for i in range(size)
        for j in range(size)
    )
    return total.astype(x.dtype)
