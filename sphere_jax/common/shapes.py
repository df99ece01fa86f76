"""Types of the arrays that several packages pass to each other, with one name for each dimension.

batch: samples. h, w, d: rows, columns and channels of a latent. height, width, channels: of an
image. tokens, width, heads, head_dim: of the hidden states of a network. classes: with the null
label.

The tests check the types of every call, under `jax.jit` when it is traced (tests/conftest.py).
Elsewhere nothing does. A shape that is a single name starts with a space, " batch": without it,
linters look for a variable of that name.
"""

import numpy as np
from jaxtyping import Array, Float, Integer, Key

AnyArray = Array | np.ndarray
Latents = Float[AnyArray, "batch h w d"]
Images = Float[AnyArray, "batch height width channels"]  # in [-1, 1]
Labels = Integer[AnyArray, " batch"] | Float[AnyArray, "batch classes"]  # or weights of a mixture
Indices = Integer[AnyArray, " batch"]
Tokens = Float[AnyArray, "batch tokens width"]
Heads = Float[AnyArray, "batch tokens heads head_dim"]
Hidden = Float[AnyArray, "*batch width"]
FeatureMaps = Float[AnyArray, "batch h w width"]
PerSample = Float[AnyArray, " batch"]
Scalar = float | Float[AnyArray, ""]
OneKey = Key[Array, ""]  # typed, as of `jax.random.key`
Keys = Key[Array, " batch"]  # one for each sample
