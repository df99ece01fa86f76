"""A convolution of each channel with its own kernel, in the form that suits the platform."""

import jax
import jax.numpy as jnp

from sphere_jax.nn.norms import per_channel


def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """x (B, h, w, C), kernel (k, k, 1, C), k odd -> (B, ceil(h / stride), ceil(w / stride), C).

    Zero-padded, at the end by one more than before where the number is odd; in the dtype of x.

    On CPU it is a sum of k^2 shifted products: XLA's grouped convolution runs at less than a
    GFLOP/s there, and its gradient is slower still.
    """
    return _of_stride_one(x, kernel) if stride == 1 else _forward(x, kernel, stride)


def _forward(x, kernel, stride):
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: shifted_products(x, kernel, stride),
        default=lambda x, kernel: grouped_convolution(x, kernel, stride),
    )


@jax.custom_vjp
def _of_stride_one(x, kernel):
    return _forward(x, kernel, 1)


def _backward(saved, gradient):
    """With respect to x it is the same operation again, which no transposition finds."""
    x, kernel = saved
    (of_kernel,) = jax.vjp(lambda k: _forward(x, k, 1), kernel)[1](gradient)
    return _of_stride_one(gradient, kernel[::-1, ::-1]), of_kernel


_of_stride_one.defvjp(lambda x, kernel: (_forward(x, kernel, 1), (x, kernel)), _backward)


def grouped_convolution(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """`depthwise` as XLA's convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(stride, stride),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def shifted_products(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """`depthwise` as a sum, which compiles to one pass over x; summed in float32."""
    size, taps = kernel.shape[0], kernel.astype(jnp.float32)
    edges = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    padded = jnp.pad(x, ((0, 0), *edges, (0, 0)))
    height, width = (stride * ((n - 1) // stride) + 1 for n in x.shape[1:3])  # that a shift spans
    total = sum(
        padded[:, i : i + height : stride, j : j + width : stride]
        * per_channel(taps[i, j, 0], x.ndim)
        for i in range(size)
        for j in range(size)
    )
    return total.astype(x.dtype)
