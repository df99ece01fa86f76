"""What `benchmarks.input` compares with: the same files by PyTorch's Dataset and DataLoader."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.rounds import torch
from sphere_jax.data.cached_latents import CachedLatents
from sphere_jax.data.record_pictures import RecordPictures, image_and_label
from sphere_jax.data.source import Source


class Examples:
    """A Dataset of an image folder: torchvision's ImageFolder with Resize, CenterCrop and
    RandomHorizontalFlip, which do this with Pillow; the tensors are uint8 HWC."""

    def __init__(self, source: Source):
        self.labels = source.labels.tolist()
        self.pictures = source.arrays["images"]
        self.size = self.pictures.data.image_size

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int):
        return self.pictures.root / self.pictures.names[index]

    def __getitem__(self, index: int):
        size = self.size
        with open(self.encoded(index), "rb") as file:
            picture = Image.open(file).convert("RGB")
        return self.fitted(picture, size), self.labels[index]

    def fitted(self, picture: Image.Image, size: int):
        wide, high = picture.size
        if min(wide, high) != size:
            short = min(wide, high)
            shape = (int(size * wide / short), int(size * high / short))
            picture = picture.resize(shape, Image.Resampling.BICUBIC)
            wide, high = shape
        left, top = round((wide - size) / 2), round((high - size) / 2)
        picture = picture.crop((left, top, left + size, top + size))
        if torch.rand(1) < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(picture))


class Records(Examples):
    """Of ArrayRecord files, read one by one as a Dataset does."""

    def __getitem__(self, index: int):
        record = self.pictures.records.one(int(self.pictures.names[index]))
        image, _ = image_and_label(record)
        picture = Image.open(io.BytesIO(image)).convert("RGB")
        return self.fitted(picture, self.size), self.labels[index]


class CachedExamples:
    """Latents of a cache, as they are or mirrored, in the type of the files."""

    def __init__(self, source: Source):
        self.latents, self.labels = source.arrays["latents"], source.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        row = 2 * index + int(torch.rand(1) < 0.5)
        record = self.latents.records.one(row)
        array = np.frombuffer(bytearray(record), self.latents.stored)
        return torch.from_numpy(array.reshape(self.latents.latent_shape)), self.labels[index]


class MappedExamples:
    """Latents of a memory-mapped `.npy`."""

    def __init__(self, source: Source):
        self.file, self.labels = source.files[0], source.labels.tolist()
        self.latents = np.load(self.file, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return torch.from_numpy(np.array(self.latents[index])), self.labels[index]


def dataset(source: Source):
    """The Dataset of the same files."""
    if "images" in source.arrays:
        records = isinstance(source.arrays["images"], RecordPictures)
        return Records(source) if records else Examples(source)
    cached = isinstance(source.arrays["latents"], CachedLatents)
    return CachedExamples(source) if cached else MappedExamples(source)


class Loader:
    """Endless batches of a DataLoader with `workers` processes; a context that ends them."""

    def __init__(self, source: Source, batch: int, workers: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        kept = dict(persistent_workers=True, multiprocessing_context="spawn") if workers else {}
        self._loader = torch.utils.data.DataLoader(
            dataset(source), batch, shuffle=True, num_workers=workers, drop_last=True,
            generator=generator, **kept,
        )  # fmt: skip

    def __enter__(self) -> Iterator[dict]:
        return self._batches()

    def _batches(self) -> Iterator[dict]:
        while True:
            for tensor, labels in self._loader:
                yield {"data": tensor, "labels": labels}

    def __exit__(self, *error) -> None:
        del self._loader
