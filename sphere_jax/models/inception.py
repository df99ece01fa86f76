"""Inception-v3 (1512.00567) as the Fréchet Inception Distance uses it.

The network of December 2015 with 1,008 classes, which every published FID, sFID and Inception Score
means. It differs from later Inception-v3: averages beside the border leave the padding out, and the
pool of the very last block takes the largest value instead of the average.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sphere_jax.nn.batch_norm import BatchNorm
from sphere_jax.nn.linear import Linear
from sphere_jax.nn.resize import bicubic, bilinear

SIDE = 299  # pixels, to which the metrics resize
SMALLEST_SIDE = 75  # one pixel is left in the last block
NUM_CLASSES = 1008
RESIZES = ("pytorch_fid", "tensorflow", "clean")
SPATIAL_CHANNELS = 7  # of 17x17 places, together 2,023 numbers


class ConvNorm(nnx.Module):
    """`relu(norm(conv(x)))`, the convolution without bias: (B, h, w, inputs) to (.., outputs).

    `padding` "SAME" pads with zeros on both sides alike. The result is in `dtype`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int] = (1, 1),
        *,
        rngs: nnx.Rngs,
        stride: int = 1,
        padding: str = "SAME",
        dtype: jnp.dtype = jnp.float32,
    ):
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (*size, inputs, outputs), jnp.float32))
        self.norm = BatchNorm(outputs)
        self.stride, self.padding, self.dtype = stride, padding, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.norm(self.product(x)))

    def of_average(self, x: jax.Array) -> jax.Array:
        """`self(average)`, that of each 3x3 so far as it is in the image. The product comes first:
        both are linear, and it leaves fewer channels to average."""
        y = nnx.avg_pool(self.product(x), (3, 3), padding="SAME", count_include_pad=False)
        return nnx.relu(self.norm(y))

    def product(self, x: jax.Array) -> jax.Array:
        """The convolution alone."""
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def halved(x: jax.Array) -> jax.Array:
    """The largest of every second 3x3: (B, h, w, C) -> (B, (h - 1) // 2, (w - 1) // 2, C)."""
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")


# The blocks, (B, h, w, inputs) to (B, h, w, outputs), or to half the grid. Layers have their
# published names; `make` makes a ConvNorm of the network's dtype.


class BlockA(nnx.Module):
    """1x1 | 5x5 | 3x3 twice | average; outputs = 224 + pool."""

    def __init__(self, inputs: int, pool: int, make: Callable[..., ConvNorm]):
        self.branch1x1 = make(inputs, 64)
        self.branch5x5_1 = make(inputs, 48)
        self.branch5x5_2 = make(48, 64, (5, 5))
        self.branch3x3dbl_1 = make(inputs, 64)
        self.branch3x3dbl_2 = make(64, 96, (3, 3))
        self.branch3x3dbl_3 = make(96, 96, (3, 3))
        self.branch_pool = make(inputs, pool)

    def __call__(self, x: jax.Array) -> jax.Array:
        branches = [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool.of_average(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockB(nnx.Module):
    """3x3 | 3x3 twice | largest; outputs = 480 + inputs, half the grid."""

    def __init__(self, inputs: int, make: Callable[..., ConvNorm]):
        self.branch3x3 = make(inputs, 384, (3, 3), stride=2, padding="VALID")
        self.branch3x3dbl_1 = make(inputs, 64)
        self.branch3x3dbl_2 = make(64, 96, (3, 3))
        self.branch3x3dbl_3 = make(96, 96, (3, 3), stride=2, padding="VALID")

    def __call__(self, x: jax.Array) -> jax.Array:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch3x3(x), double, halved(x)], axis=-1)


class BlockC(nnx.Module):
    """1x1 | 7x7 in two steps | 7x7 twice in four | average; outputs = 768."""

    def __init__(self, inputs: int, width: int, make: Callable[..., ConvNorm]):
        self.branch1x1 = make(inputs, 192)
        self.branch7x7_1 = make(inputs, width)
        self.branch7x7_2 = make(width, width, (1, 7))
        self.branch7x7_3 = make(width, 192, (7, 1))
        self.branch7x7dbl_1 = make(inputs, width)
        self.branch7x7dbl_2 = make(width, width, (7, 1))
        self.branch7x7dbl_3 = make(width, width, (1, 7))
        self.branch7x7dbl_4 = make(width, width, (7, 1))
        self.branch7x7dbl_5 = make(width, 192, (1, 7))
        self.branch_pool = make(inputs, 192)

    def __call__(self, x: jax.Array) -> jax.Array:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branches = [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool.of_average(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockD(nnx.Module):
    """3x3 | 7x7 in two steps, then 3x3 | largest; outputs = 512 + inputs, half the grid."""

    def __init__(self, inputs: int, make: Callable[..., ConvNorm]):
        self.branch3x3_1 = make(inputs, 192)
        self.branch3x3_2 = make(192, 320, (3, 3), stride=2, padding="VALID")
        self.branch7x7x3_1 = make(inputs, 192)
        self.branch7x7x3_2 = make(192, 192, (1, 7))
        self.branch7x7x3_3 = make(192, 192, (7, 1))
        self.branch7x7x3_4 = make(192, 192, (3, 3), stride=2, padding="VALID")

    def __call__(self, x: jax.Array) -> jax.Array:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        branches = [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), halved(x)]
        return jnp.concatenate(branches, axis=-1)


class BlockE(nnx.Module):
    """1x1 | 3x3 as two in parallel | 3x3, then the same | average or `largest`; outputs = 2048."""

    def __init__(self, inputs: int, largest: bool, make: Callable[..., ConvNorm]):
        self.branch1x1 = make(inputs, 320)
        self.branch3x3_1 = make(inputs, 384)
        self.branch3x3_2a = make(384, 384, (1, 3))
        self.branch3x3_2b = make(384, 384, (3, 1))
        self.branch3x3dbl_1 = make(inputs, 448)
        self.branch3x3dbl_2 = make(448, 384, (3, 3))
        self.branch3x3dbl_3a = make(384, 384, (1, 3))
        self.branch3x3dbl_3b = make(384, 384, (3, 1))
        self.branch_pool = make(inputs, 192)
        self.largest = largest

    def __call__(self, x: jax.Array) -> jax.Array:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        largest = nnx.max_pool(x, (3, 3), padding="SAME")
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(largest) if self.largest else self.branch_pool.of_average(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class Inception(nnx.Module):
    """`features` of what `inception_input` makes of images, and `__call__` for FID of the images.

    `dtype` is that of the products; parameters, the average over places and the classifier are
    float32.
    """

    def __init__(self, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        def make(*sizes, **options):
            return ConvNorm(*sizes, rngs=rngs, dtype=dtype, **options)

        self.conv2d_1a_3x3 = make(3, 32, (3, 3), stride=2, padding="VALID")
        self.conv2d_2a_3x3 = make(32, 32, (3, 3), padding="VALID")
        self.conv2d_2b_3x3 = make(32, 64, (3, 3))
        self.conv2d_3b_1x1 = make(64, 80)
        self.conv2d_4a_3x3 = make(80, 192, (3, 3), padding="VALID")
        self.mixed_5b = BlockA(192, 32, make)
        self.mixed_5c = BlockA(256, 64, make)
        self.mixed_5d = BlockA(288, 64, make)
        self.mixed_6a = BlockB(288, make)
        self.mixed_6b = BlockC(768, 128, make)
        self.mixed_6c = BlockC(768, 160, make)
        self.mixed_6d = BlockC(768, 160, make)
        self.mixed_6e = BlockC(768, 192, make)
        self.mixed_7a = BlockD(768, make)
        self.mixed_7b = BlockE(1280, False, make)
        self.mixed_7c = BlockE(2048, True, make)
        self.fc = Linear(2048, NUM_CLASSES, rngs=rngs)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """(B, H, W, 3) as `inception_input` makes them, to what the metrics read.

        | name | at 299 pixels | |
        |---|---|---|
        | "64", "192" | (B, 73, 73, 64), (B, 35, 35, 192) | first and second pool, in `dtype` |
        | "spatial" | (B, 17, 17, 7) | of sFID: TensorFlow's mixed_6/conv, in `dtype` |
        | "768" | (B, 17, 17, 768) | before the auxiliary classifier, in `dtype` |
        | "2048" | (B, 2048) | of FID: the average over the last block |
        | "logits_unbiased" | (B, 1008) | of the Inception Score: no bias, as in its original |
        | "logits" | (B, 1008) | |

        sFID of the ADM suite flattens (17, 17, 7) as it stands. Under `jax.jit` what is not used
        costs nothing; on CPU, `nn.compilation.quick_products` make it 1.5 times quicker.

        Raises:
          ValueError: a side of less than 75 pixels.
        """
        height, width = x.shape[1:3]
        if min(height, width) < SMALLEST_SIDE:
            raise ValueError(
                f"Inception needs sides of {SMALLEST_SIDE} pixels, not {height}x{width}"
            )
        found = {}
        x = self.conv2d_2b_3x3(self.conv2d_2a_3x3(self.conv2d_1a_3x3(x)))
        x = found["64"] = halved(x)
        x = self.conv2d_4a_3x3(self.conv2d_3b_1x1(x))
        x = found["192"] = halved(x)
        x = self.mixed_5d(self.mixed_5c(self.mixed_5b(x)))
        x = self.mixed_6d(self.mixed_6c(self.mixed_6b(self.mixed_6a(x))))
        found["spatial"] = x[..., :SPATIAL_CHANNELS]  # the 1x1 branch comes first
        x = found["768"] = self.mixed_6e(x)
        x = self.mixed_7c(self.mixed_7b(self.mixed_7a(x)))
        x = found["2048"] = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        found["logits_unbiased"] = x @ self.fc.kernel[...]
        found["logits"] = found["logits_unbiased"] + self.fc.bias[...][None]
        return found

    def __call__(self, images: jax.Array, resize: str = "pytorch_fid") -> jax.Array:
        """Images as `inception_input` takes them, to the features (B, 2048) of FID."""
        return self.features(inception_input(images, resize))["2048"]


def inception_input(images: jax.Array, resize: str = "pytorch_fid") -> jax.Array:
    """Images (B, H, W, 3), uint8 or float in [-1, 1], to (B, 299, 299, 3) float32 in [-1, 1].

    `resize` names the implementation to match. The first two are bilinear without antialiasing:
      "pytorch_fid": places between pixel centres, then 0..255 to -1..1.
      "tensorflow": places counted from the corner (`bilinear_tf1`), then (x - 128) / 128, as the
        original graph does it, and with it the ADM suite and torch-fidelity.
      "clean": Pillow's bicubic filter, antialiased, in floats, clipped to 0..255 and not rounded
        (2104.11222, clean-fid), then (x - 128) / 128.

    Metrics are defined on uint8. Floats are not rounded here, so that gradients pass.

    Raises:
      ValueError: another `resize`.
    """
    if resize not in RESIZES:
        raise ValueError(f"resize must be one of {', '.join(RESIZES)}, not {resize!r}")
    x = images.astype(jnp.float32)
    if jnp.issubdtype(images.dtype, jnp.floating):
        x = (x + 1) * 127.5
    if resize == "tensorflow":
        return (bilinear_tf1(x, SIDE, SIDE) - 128) / 128
    if resize == "clean":
        return (jnp.clip(bicubic(x, SIDE, SIDE, antialias=True), 0, 255) - 128) / 128
    return bilinear(x, SIDE, SIDE) / 127.5 - 1


def bilinear_tf1(images: jax.Array, height: int, width: int) -> jax.Array:
    """(B, H, W, C) to (B, height, width, C), float32, as TensorFlow 1 resizes.

    Output pixel i reads at i * H / height, without the half pixel by which centres differ.
    """
    x = images.astype(jnp.float32)
    rows, columns = _tf1_matrix(x.shape[1], height), _tf1_matrix(x.shape[2], width)
    x = jnp.einsum("oh,bhwc->bowc", rows, x, precision="highest")
    return jnp.einsum("ow,bhwc->bhoc", columns, x, precision="highest")


def _tf1_matrix(size: int, target: int) -> np.ndarray:
    places = np.arange(target, dtype=np.float32) * (np.float32(size) / np.float32(target))
    low = places.astype(int)
    matrix = np.zeros((target, size), np.float32)
    np.add.at(matrix, (np.arange(target), low), 1 - (places - low))
    np.add.at(matrix, (np.arange(target), np.minimum(low + 1, size - 1)), places - low)
    return matrix
