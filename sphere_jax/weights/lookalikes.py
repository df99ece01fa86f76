"""Networks that have the same tensors and other latents: what tells whose weights a file holds.

Stable Diffusion's VAE and SDXL's differ in no shape, nor do those of FLUX.1, SD3 and REPA-E: with
the scale of the one, the other's latents are silently wrong. The signs, in this order: the file's
SHA-256, the `config.json` that diffusers writes beside it, the file's metadata, the names of the
file and its folders. Without any sign nothing tells them apart, and the user has to.

Digests are those that public lists of files agree on. We have not read the files themselves, and
know no statistic of the weights that separates them.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sphere_jax.common import fingerprints

FOLDERS = 4  # names of a path that are read: of the file and of the nearest folders
DIFFUSERS_SCALE = 0.18215  # of an AutoencoderKL whose config.json names none
DIGITS = 16  # of a SHA-256

SD = {
    "735e4c3a447a3255": "Stable Diffusion's VAE (ft-mse)",
    "a1d993488569e928": "Stable Diffusion's VAE (ft-mse)",
}
SDXL = {
    "63aeecb90ff7bc1c": "SDXL's VAE",
    "235745af8d86bf4a": "SDXL's VAE",
    "bcb60880a46b63de": "SDXL's VAE",
    "1598f3d24932bcfe": "SDXL's VAE",
}
FLUX1 = {"afc8e28272cd15db": "FLUX.1's VAE", "f5b59a26851551b6": "FLUX.1's VAE"}
SD3 = {
    "f9b67a279283625c": "SD3's VAE",
    "6ad8546282f0f74d": "SD3.5's VAE",
    "8f53304a79335b55": "SD3.5's VAE",
}


@dataclasses.dataclass(frozen=True)
class Signs:
    """What tells a network from those that look like it.

    alike: these, in words. own, others: regular expressions of names and of metadata. scaling:
    `scaling_factor` and `shift_factor` of diffusers' config.json, if known. digests, other_digests:
    the first digits of SHA-256s, and what they are of. required: whether weights without any sign
    are refused.
    """

    alike: str
    own: str
    others: str
    scaling: tuple[float, float] | None = None
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    other_digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    required: bool = False


_OTHERS_16 = r"sd[-_. v]?3|stable[-_]diffusion[-_]3"
SIGNS = {
    "sd_vae": Signs(
        "SDXL's VAE and REPA-E's",
        r"sd[-_]?v?[12]|stable[-_]diffusion[-_](v?[12]|inpainting)|sd[-_]vae|ft[-_](ema|mse)|kl-f8",
        r"xl|e2e|repa|" + _OTHERS_16,
        (DIFFUSERS_SCALE, 0.0),
        SD,
        SDXL,
        required=True,
    ),
    "flux1_vae": Signs(
        "SD3's VAE and REPA-E's FLUX.1",
        r"flux",
        r"e2e|repa|" + _OTHERS_16,
        (0.3611, 0.1159),
        FLUX1,
        SD3,
        required=True,
    ),
    "repae_flux1_vae": Signs(
        "FLUX.1's own VAE and SD3's",
        r"e2e|repa",
        _OTHERS_16,
        None,  # what REPA-E's config.json says is not known here
        {},
        FLUX1 | SD3,
        required=True,
    ),
    # The tiny VAEs and generators are published under names of their own.
    "taesd": Signs("TAESDXL", r"taesd($|_)", r"xl"),
    "taef1": Signs("TAESD3", r"taef1", r"taesd3|" + _OTHERS_16),
}
for _size in ("s", "b", "l", "xl"):
    SIGNS[f"sit_{_size}_2"] = Signs("DiT", r"(?<![a-z])sit(?![a-z])", r"(?<![a-z])dit(?![a-z])")
    SIGNS[f"dit_{_size}_2"] = Signs("SiT", r"(?<![a-z])dit(?![a-z])", r"(?<![a-z])sit(?![a-z])")


def identified(name: str, paths: list[Path]) -> str:
    """How files are known to hold the network `name`, in words; "" if nothing tells, or if no
    other network has its tensors.

    Raises ValueError, a sentence without its end, if they are of another network that looks like
    it.
    """
    signs = SIGNS.get(name)
    if signs is None:
        return ""
    inside = [file for path in paths for file in sorted(path.glob("*.safetensors"))]
    for path in (*paths, *inside):
        for found in (_by_digest, _by_config, _by_metadata, _by_name):
            if known := found(signs, path):
                return known
    return ""


def unidentified(name: str) -> str:
    """Why weights that nothing identifies are refused, in words; "" for others."""
    signs = SIGNS.get(name)
    if signs is None or not signs.required:
        return ""
    return (
        f"nothing in the file, beside it or in its name tells '{name}' from {signs.alike}, which "
        "have the same tensors and other latents"
    )


def _other(what: str, signs: Signs) -> ValueError:
    return ValueError(
        f"{what}: these may be the weights of {signs.alike}, with the same tensors (--confirm of "
        "sphere_jax.convert overrules this)"
    )


def _by_digest(signs: Signs, path: Path) -> str:
    if not (signs.digests or signs.other_digests) or not path.is_file():
        return ""
    found = fingerprints.of_file(path, DIGITS)
    if found in signs.other_digests:
        raise ValueError(f"{path} holds the weights of {signs.other_digests[found]} (its SHA-256)")
    return "its SHA-256" if found in signs.digests else ""


def _by_config(signs: Signs, path: Path) -> str:
    file = (path if path.is_dir() else path.parent) / "config.json"
    if signs.scaling is None or not file.is_file():
        return ""
    try:
        content = json.loads(file.read_text())
        if content.get("_class_name") != "AutoencoderKL":
            return ""
        scale = float(content.get("scaling_factor") or DIFFUSERS_SCALE)
        shift = float(content.get("shift_factor") or 0.0)
    except (OSError, ValueError, TypeError, AttributeError):  # of another program
        return ""
    if max(abs(scale - signs.scaling[0]), abs(shift - signs.scaling[1])) > 1e-6:
        expected = "scaling_factor={:g} and shift_factor={:g}".format(*signs.scaling)
        raise _other(
            f"{file} has scaling_factor={scale:g} and shift_factor={shift:g}, not {expected}", signs
        )
    return f"{file.name} beside it"


def _by_metadata(signs: Signs, path: Path) -> str:
    """By the fields of Stability's model specification, if there are any."""
    if path.suffix != ".safetensors" or not path.is_file():
        return ""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError):
        return ""
    for key in ("modelspec.architecture", "modelspec.title"):
        if known := _judged(signs, metadata.get(key, ""), f"{path} names itself in {key}"):
            return known and "its metadata"
    return ""


def _by_name(signs: Signs, path: Path) -> str:
    for part in list(reversed(path.parts))[:FOLDERS]:
        if known := _judged(signs, part, f"{path} is named after another network"):
            return known and f"the name '{part}'"
    return ""


def _judged(signs: Signs, text: str, what: str) -> bool:
    """Whether a name is of the network itself. Raises ValueError for that of another."""
    if re.search(signs.others, text.lower()):
        raise _other(f"{what} ('{text}')", signs)
    return bool(re.search(signs.own, text.lower()))
