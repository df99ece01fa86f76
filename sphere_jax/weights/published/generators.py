"""Published generators on latents."""

from collections.abc import Iterator
from functools import partial

from sphere_jax.models.lightning_ddt import SIZES as DDT_SIZES
from sphere_jax.models.lightning_ddt import LightningDDT
from sphere_jax.models.lightning_dit import SIZES as LIGHTNING_SIZES
from sphere_jax.models.lightning_dit import LightningDiT
from sphere_jax.models.sit import SIZES as SIT_SIZES
from sphere_jax.models.sit import SiT
from sphere_jax.weights.layouts import generators
from sphere_jax.weights.published.entry import META, RAE_HOME, File, Published, hub

LIGHTNING = "lightningdit-xl-imagenet256-800ep"

PARAMETERS = {  # numbers that a converted file holds; counting them takes a minute
    "sit_s_2": 32_865_056,
    "dit_s_2": 32_865_056,
    "sit_b_2": 130_315_808,
    "dit_b_2": 130_315_808,
    "sit_l_2": 457_840_672,
    "dit_l_2": 457_840_672,
    "sit_xl_2": 674_834_720,
    "dit_xl_2": 674_834_720,
    "lightning_dit_s": 32_886_944,
    "rae_lightning_dit_s": 33_551_488,
    "lightning_dit_b": 130_359_584,
    "rae_lightning_dit_b": 131_687_680,
    "lightning_dit_l": 457_890_816,
    "rae_lightning_dit_l": 459_661_280,
    "lightning_dit_xl": 674_961_824,
    "rae_lightning_dit_xl": 676_953_472,
    "lightning_dit_1p0b": 1_029_007_904,
    "rae_lightning_dit_1p0b": 1_031_663_104,
    "lightning_dit_1p6b": 1_631_308_368,
    "rae_lightning_dit_1p6b": 1_634_405_936,
    "dit_dh_s": 196_357_460,
    "dit_dh_b": 294_099_284,
    "dit_dh_l": 621_482_292,
    "dit_dh_xl": 838_380_884,
}


def published() -> Iterator[Published]:
    """All of them, in the order of `sphere_jax.convert --list`."""
    yield from _sit_and_dit()
    yield from _lightning_dit()
    yield from _dit_dh()


def _new(
    name: str, about: str, module, home: str, licence: str, files: tuple[File, ...], *predicts: str
) -> Published:
    return Published(
        "generators", name, about, PARAMETERS[name], module, generators.layouts, home, licence,
        files, predicts,
    )  # fmt: skip


def _sit_and_dit() -> Iterator[Published]:
    for size, (depth, width, heads) in SIT_SIZES.items():
        module = partial(SiT, (32, 32, 4), 2, width, depth, heads, 1000, learn_sigma=True)
        largest, small = size == "XL", size.lower()
        files = hub("nyu-visionx/SiT-collections", "SiT-XL-2-256.pt") if largest else ()
        home, about = "github willisma/SiT", "SiT, patch 2, 256 px, SD latents"
        yield _new(f"sit_{small}_2", about, module, home, "MIT", files, "data_at_one")
        files = (File(META.format("DiT/models/DiT-XL-2-256x256.pt")),) if largest else ()
        home, about = "github facebookresearch/DiT", "DiT, patch 2, 256 px, SD latents"
        name, licence = f"dit_{small}_2", "CC-BY-NC-4.0"
        yield _new(name, about, module, home, licence, files, "noise_prediction")


def _lightning_dit() -> Iterator[Published]:
    for size, (depth, width, heads) in LIGHTNING_SIZES.items():
        sizes = (1, width, depth, heads, 1000)
        files = hub(f"hustvl/{LIGHTNING}", f"{LIGHTNING}.pt") if size == "XL" else ()
        module, home = partial(LightningDiT, (16, 16, 32), *sizes), "github hustvl/LightningDiT"
        name, about = f"lightning_dit_{size.lower()}", "LightningDiT, patch 1, VA-VAE latents"
        yield _new(name, about, module, home, "MIT", files, "data_at_one")
        module = partial(LightningDiT, (16, 16, 768), *sizes, time_embedding="fourier")
        home, about = "github bytetriper/RAE, amandpkr/RJF", "LightningDiT on RAE latents"
        # RAE's networks and RJF's have one layout: which one it is, only a config knows.
        predicts = ("noise_at_one", "unit_sphere")
        yield _new(f"rae_{name}", about, module, home, "MIT (RAE)", (), *predicts)


def _dit_dh() -> Iterator[Published]:
    for size, (depth, width, heads) in DDT_SIZES.items():
        module = partial(LightningDDT, (16, 16, 768), 1, width, depth, heads, 1000)
        path = "DiTs/Dinov2/wReg_base/ImageNet256/DiTDH-XL/stage2_model.pt"
        files = hub(RAE_HOME, path) if size == "XL" else ()
        name, home = f"dit_dh_{size.lower()}", "github bytetriper/RAE"
        yield _new(name, "DiT-DH on RAE latents", module, home, "MIT", files, "noise_at_one")
