"""The 1,797 grey 8x8 digits that ship inside scikit-learn."""

from importlib.util import find_spec
from pathlib import Path

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
        # The file that `sklearn.datasets.load_digits` reads: its import takes longer than all of
        # this, at each start of a small run.
        folder = Path(find_spec("sklearn").origin).parent / "datasets" / "data"
        table = np.loadtxt(folder / "digits.csv.gz", delimiter=",", dtype=np.int32)
        pixels, labels = table[:, :-1], table[:, -1]
        images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        return split_arrays(images, labels, every_fifth_of_each_class(labels), data)


SOURCE = Digits()
