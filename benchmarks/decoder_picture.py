"""The cells of decoder runs (`decoder.py`) as a picture, on two photographs that may be shown."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from sphere_jax.data.pictures import fit
from sphere_jax.methods.base import space_of
from sphere_jax.nn.pixels import to_float, to_uint8
from sphere_jax.runs.loading import load_run

PHOTOGRAPHS = ("flower.jpg", "china.jpg")  # of scikit-learn
CREDIT = (
    "Photographs: flower.jpg (vultilion) and china.jpg (danielbuechele), CC BY 2.0, as they come "
    "with scikit-learn; the middle of each is enlarged beside it"
)


def cells(runs: list[dict]) -> dict[str, np.ndarray]:
    """The photographs, and their reconstructions by each cell: uint8 (4, size, size, 3) by name,
    after each picture its middle twice as large.

    "folder" and "control" of a run are as `decoder.paired` leaves them. Raises UserError.
    """
    photographs = _photographs(runs[0]["config"]["data"]["image_size"])
    rows = {"photograph": photographs}
    for run in runs:
        found = _cells(run["folder"], photographs)
        rows.setdefault("as published, raw", found["raw_original"])
        rows.setdefault(_published(run), found["projected_original"])
        rows[f"{run['name']}, projected"] = found["projected_finetuned"]
        if run["control"]:
            own = _cells(run["control"]["folder"], photographs)
            rows[f"{run['control']['name']}, raw"] = own["raw_finetuned"]
    return {name: _with_details(images) for name, images in rows.items()}


def _published(run: dict) -> str:
    statistics = run["config"]["tokenizer"]["pretrained_statistics"]
    return f"as published, {'normalised, ' if statistics else ''}projected"


def _photographs(size: int) -> np.ndarray:
    """uint8 (2, size, size, 3)."""
    whole = [Image.fromarray(load_sample_image(name)) for name in PHOTOGRAPHS]
    return np.stack([np.asarray(fit(picture, size, "bicubic")) for picture in whole])


def _cells(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Reconstructions by the run's two decoders, of raw and of projected latents, uint8."""
    run = load_run(folder)
    tokenizer = run.tokenizer
    space = space_of(run.config, tokenizer.latent_shape)
    published = jax.tree.map(np.asarray, tokenizer.load(run.config.tokenizer))
    latents = jax.jit(tokenizer.encode)(run.artifacts, to_float(images))
    decode = jax.jit(tokenizer.decode)
    return {
        f"{cell}_{name}": np.asarray(to_uint8(decode(params, z)))
        for name, params in (("original", published), ("finetuned", run.artifacts))
        for cell, z in (("raw", latents), ("projected", space.project(latents)))
    }


def _with_details(images: np.ndarray) -> np.ndarray:
    size = images.shape[1]
    middle = slice(size // 4, size // 4 + size // 2)
    details = images[:, middle, middle].repeat(2, axis=1).repeat(2, axis=2)
    return np.stack([images, details], axis=1).reshape(-1, size, size, 3)
