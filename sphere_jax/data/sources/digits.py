"""The 1,797 grey 8x8 digits that ship inside scikit-learn."""

import numpy as np

from sphere_jax.config.options import DataOptions
from sphere_jax.data.class_names import Classes
from sphere_jax.data.source import DataSource, Split
from sphere_jax.data.splitting import every_fifth_of_each_class, split_arrays


class Digits(DataSource):
    """Needs no path. Every fifth of each class is held out."""

    def classes(self, data: DataOptions) -> Classes:
        return Classes(10, tuple("0123456789"))

    def load(self, data: DataOptions) -> Split:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = digits.target.astype(np.int32)
        return split_arrays(images, labels, every_fifth_of_each_class(labels), data)


SOURCE = Digits()
