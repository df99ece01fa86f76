"""The usual references by name: published statistics, and where they are."""

import dataclasses
from pathlib import Path

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import cache_folder, make_cache_folder
from sphere_jax.common.processes import barrier, is_main_process
from sphere_jax.weights.fetch import fetch as download

ADM = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/{}.npz"
EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs/{}.npz"


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published file; about: what it is of, and whose numbers are against it."""

    url: str
    about: str


_ADM_HOLDS = "statistics of the training set for FID and sFID, and 10,000 images"
REFERENCES = {
    "imagenet64_adm": Reference(ADM.format("imagenet/64/VIRTUAL_imagenet64_labeled"), _ADM_HOLDS),
    "imagenet128_adm": Reference(
        ADM.format("imagenet/128/VIRTUAL_imagenet128_labeled"), _ADM_HOLDS
    ),
    "imagenet256_adm": Reference(
        ADM.format("imagenet/256/VIRTUAL_imagenet256_labeled"), _ADM_HOLDS
    ),
    "imagenet512_adm": Reference(ADM.format("imagenet/512/VIRTUAL_imagenet512"), _ADM_HOLDS),
    "lsun_bedroom256_adm": Reference(
        ADM.format("lsun/bedroom/VIRTUAL_lsun_bedroom256"), _ADM_HOLDS
    ),
    "cifar10_train": Reference(
        EDM.format("cifar10-32x32"), "statistics of the 50,000 training images, of EDM"
    ),
    "imagenet64_edm": Reference(
        EDM.format("imagenet-64x64"), "statistics of the training set, of EDM"
    ),
    "ffhq64": Reference(EDM.format("ffhq-64x64"), "statistics of the 70,000 images, of EDM"),
    "afhqv2_64": Reference(EDM.format("afhqv2-64x64"), "statistics of the images, of EDM"),
}


def find(name: str, fetch: bool = False) -> Path:
    """The file of a named reference, downloaded into the cache folder if `fetch`.

    Raises:
      UserError: no path and no reference has this name; or it is not here, and where it is.
    """
    if name not in REFERENCES:
        raise UserError(
            f"There is no file or folder '{name}', and no reference of this name; "
            f"{plugins.nearest(name, REFERENCES)}"
        )
    url, folder = REFERENCES[name].url, cache_folder("references")
    file = folder / url.rsplit("/", 1)[-1]
    if fetch and is_main_process():
        download(url, make_cache_folder("references"))
    if fetch:
        barrier(f"{name} is here")
    if not file.is_file():
        raise UserError(
            f"The reference {name} is not here: give --fetch, or download {url} elsewhere and put "
            f"it into {folder}, or give its path."
        )
    return file
