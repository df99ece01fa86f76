"""How images of other sizes are brought to one before any network sees them: named, and said."""

import dataclasses

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sphere_jax.common.errors import UserError
from sphere_jax.data.pictures import FILTERS, fit

Pixels = UInt8[np.ndarray, "_h _w 3"]


@dataclasses.dataclass(frozen=True)
class Fitting:
    """size: (height, width) that images get; None leaves each as it is.

    resize: one of `data.image_choices.RESIZES`. crop: the shorter side gets its size and the middle
      is kept; else images are stretched, which "adm" does not know.
    """

    size: tuple[int, int] | None = None
    resize: str = "bicubic"
    crop: bool = True

    def __call__(self, pixels: Pixels) -> Pixels:
        """Raises UserError for a size that the crop cannot give."""
        if self.size is None or pixels.shape[:2] == self.size:
            return pixels
        height, width = self.size
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        if not self.crop:
            return np.asarray(picture.resize((width, height), FILTERS[self.resize]))
        if height != width:
            raise UserError(
                f"Images of {pixels.shape[0]}x{pixels.shape[1]} cannot be cropped to "
                f"{height}x{width}; give a size for both sides, or crop='none'."
            )
        return np.asarray(fit(picture, height, self.resize))

    @property
    def words(self) -> str:
        """For the protocol."""
        how = "shorter side, then the middle" if self.crop else "stretched"
        return f"{self.resize}, {how}"
