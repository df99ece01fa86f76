"""Published networks against their PyTorch originals, images per second in interleaved rounds.

    pip install -r requirements-parity.txt && pip install --no-deps -r requirements-originals.txt
    python -m benchmarks.networks --networks inception_fid sd_vae_encode sd_vae_decode --rounds 5

Both sides have the same random weights, so the outputs are compared too. PyTorch runs eagerly under
inference_mode; ours is jitted, its batch sharded over all devices there are. Where the packages of
an original are not installed, ours is timed alone.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rounds, smoke
from benchmarks.originals import from_tests
from sphere_jax.cli import run_command
from sphere_jax.distribution.mesh import batch_sharding, make_mesh, put_global, tree_shardings
from sphere_jax.nn.compilation import quick_products
from sphere_jax.weights.catalogue import catalogue
from sphere_jax.weights.opening import open_tensors
from sphere_jax.weights.tensors import Tensors, convert

if TYPE_CHECKING:
    import torch
    from torch import nn

SMOKE = ["--networks", "taesd_encode", "taesd_decode"]
SMOKE += ["--side=16", "--batch=2", "--rounds=1", "--seconds=0"]
CALLS = {  # of a network's module, where it is not the module itself
    "encode": lambda module, x: module.encoder(x),
    "decode": lambda module, x: module.decoder(x),
    "tokens": lambda module, x: module(x).patches,
    "pooled": lambda module, x: module.features(x)["2048"],
    "latents": lambda module, x: module.encode(x),
    "distance": lambda module, x: module(x, x[::-1]),
}


class Case(NamedTuple):
    network: str  # in the catalogue
    original: Callable[[], "nn.Module"]
    theirs: "Callable[[nn.Module, torch.Tensor], torch.Tensor]"
    ours: Callable
    shape: tuple[int, int, int]  # of the input, (H, W, C)


def main(argv: list[str]) -> None:
    cases = all_cases()
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--networks", nargs="+", default=list(cases), choices=list(cases))
    flags.add_argument("--batch", type=int, default=8)
    flags.add_argument("--side", type=int, help="of inputs, in pixels; default: as published")
    flags.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    rounds.add_flags(flags, rounds=5)
    args = smoke.parse(flags, argv, lambda: SMOKE)
    clock = rounds.start(args)
    print(f"batch {args.batch}, ours in {args.dtype}")
    print(f"{'network':<22}{'input':>12}{'ours img/s':>12}{'torch img/s':>13}"
          f"{'ratio (min / median / max)':>30}{'max rel. difference':>22}")  # fmt: skip
    for name in args.networks:
        print(measure(name, cases[name], args, clock), flush=True)


def measure(name: str, case: Case, args, clock) -> str:
    """A row of the table."""
    entry, mesh = catalogue()[case.network], make_mesh()
    network, side = entry.network(dtype=jnp.dtype(args.dtype)), args.side or case.shape[0]
    x = np.random.default_rng(args.seed).uniform(-1, 1, (args.batch, side, side, case.shape[-1]))
    x = x.astype(np.float32)
    try:
        original = build_original(case, args.seed)
        params = convert(published(original), entry.layouts(network), network)
    except ImportError as error:
        print(f"{name}: {error}; sphere_jax alone")
        original, params = None, smoke.random_params(network, args.seed)
    params = put_global(mesh, params, tree_shardings(mesh, params))
    images = jax.device_put(x, batch_sharding(mesh))
    run = jax.jit(
        lambda params, x: case.ours(network.bind(params), x), compiler_options=quick_products()
    )
    contenders = {"sphere_jax": lambda: run(params, images).block_until_ready()}
    found, compared = np.asarray(run(params, images), np.float32), None
    if original:
        contenders["torch eager"], compared = torch_run(case, original, x)
    times = rounds.time_rounds(contenders, args.rounds, clock, args.seconds)
    best = {key: f"{args.batch / min(seconds):.2f}" for key, seconds in times.items()}
    ratios, error = "-", "-"
    if original:
        pairs = zip(times["sphere_jax"], times["torch eager"], strict=True)
        ratios = rounds.spread([b / a for a, b in pairs], "{:.2f}")
        error = f"{np.abs(found.ravel() - compared.ravel()).max() / np.abs(compared).max():.1e}"
    return (f"{name:<22}{'x'.join(map(str, x.shape[1:])):>12}{best['sphere_jax']:>12}"
            f"{best.get('torch eager', '-'):>13}{ratios:>30}{error:>22}")  # fmt: skip


def build_original(case: Case, seed: int) -> "nn.Module":
    """With random weights. Raises ImportError for a package that is not installed."""
    import torch

    # diffusers and transformers look for it, too.
    from_tests("torchvision_shim").import_torchvision()
    torch.manual_seed(seed)
    return randomise(case.original().eval())


def torch_run(case: Case, original: "nn.Module", x: np.ndarray) -> tuple[Callable, np.ndarray]:
    """What calls the original, and what it returns, channels last."""
    import torch

    nchw = torch.from_numpy(x).movedim(-1, 1).contiguous()

    def call():
        with torch.inference_mode():
            return case.theirs(original, nchw)

    found = call()
    return call, (found.movedim(1, -1) if found.ndim == 4 else found).numpy()


def published(model: "nn.Module") -> Tensors:
    """Its tensors under their published names."""
    if not hasattr(model, "save_pretrained"):
        return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:  # transformers has others in memory
        model.save_pretrained(folder)
        return dict(open_tensors(folder))


def randomise(model: "nn.Module") -> "nn.Module":
    """Noise on what starts at one or zero, which may hide an error; variances stay positive."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for key, buffer in model.named_buffers():
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model


def all_cases() -> dict[str, Case]:
    """Originals by the packages that publish them; each is imported when it is built."""
    return {
        "inception_fid": Case(
            "inception_fid", inception, lambda m, x: m.pooled(x), CALLS["pooled"], (299, 299, 3)
        ),
        "efficientnet_lite0": Case(
            "efficientnet_lite0", efficientnet, lambda m, x: m(x), lambda m, x: m(x), (224, 224, 3)
        ),
        "convnext_small": Case(
            "convnext_small", convnext, lambda m, x: m(x), lambda m, x: m(x), (224, 224, 3)
        ),
        "lpips_vgg16": Case(
            "lpips_vgg16", lpips, lambda m, x: m(x, x.flip(0)).flatten(), CALLS["distance"],
            (64, 64, 3),
        ),
        "dinov2_vitb14_reg": Case(
            "dinov2_vitb14_reg", dinov2,
            lambda m, x: m(x).last_hidden_state[:, 5:], CALLS["tokens"], (224, 224, 3),
        ),
        "dinov3_vits16": Case(
            "dinov3_vits16", dinov3,
            lambda m, x: m(x).last_hidden_state[:, 5:], CALLS["tokens"], (224, 224, 3),
        ),
        "taesd_encode": Case(
            "taesd", taesd, lambda m, x: m.encoder.layers(x), CALLS["encode"], (256, 256, 3)
        ),
        "taesd_decode": Case(
            "taesd", taesd, lambda m, x: m.decoder.layers(3 * (x / 3).tanh()), CALLS["decode"],
            (32, 32, 4),
        ),
        "sd_vae_encode": Case(
            "sd_vae", kl_vae, lambda m, x: m.quant_conv(m.encoder(x)), CALLS["encode"],
            (256, 256, 3),
        ),
        "sd_vae_decode": Case(
            "sd_vae", kl_vae, lambda m, x: m.decoder(m.post_quant_conv(x)), CALLS["decode"],
            (32, 32, 4),
        ),
        "hae_encode": Case(
            "hae_autoencoder", hae, lambda m, x: m.latents(x), CALLS["latents"], (256, 256, 3)
        ),
        "hae_decode": Case(
            "hae_autoencoder", hae, lambda m, x: m.decode(x)["images"], CALLS["decode"],
            (16, 16, 1024),
        ),
    }  # fmt: skip


def inception() -> "nn.Module":
    """pytorch-fid's network, without its download; `pooled` is what the FID compares."""
    from pytorch_fid import inception as published

    model = published._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    blocks = {"Mixed_5b": (192, 32), "Mixed_5c": (256, 64), "Mixed_5d": (288, 64)}
    for name, (channels, pooled) in blocks.items():
        setattr(model, name, published.FIDInceptionA(channels, pool_features=pooled))
    for name, channels in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160)):
        setattr(model, name, published.FIDInceptionC(768, channels_7x7=channels))
    model.Mixed_6e = published.FIDInceptionC(768, channels_7x7=192)
    model.Mixed_7b = published.FIDInceptionE_1(1280)
    model.Mixed_7c = published.FIDInceptionE_2(2048)

    def pooled(x):
        for name, layer in model.named_children():
            if name in ("avgpool", "dropout", "fc"):
                continue
            x = layer(x)
        return x.mean((2, 3))

    model.pooled = pooled
    return model


def efficientnet() -> "nn.Module":
    import timm

    return timm.create_model("tf_efficientnet_lite0", pretrained=False)


def convnext() -> "nn.Module":
    from torchvision.models import convnext_small

    return convnext_small(weights=None)


def lpips() -> "nn.Module":
    import lpips as published

    return published.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)


def dinov2() -> "nn.Module":
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    return Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(image_size=518, patch_size=14, num_register_tokens=4)
    )


def dinov3() -> "nn.Module":
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    return DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4))


def taesd() -> "nn.Module":
    from diffusers import AutoencoderTiny

    return AutoencoderTiny()


def kl_vae() -> "nn.Module":
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
    )


def hae() -> "nn.Module":
    """Stem, DINOv3-L and decoder by the names of HAE's file, as the parity tests have them."""
    import torch

    from sphere_jax.models.imagenet import MEAN, STD

    class Whole(from_tests("originals_dc_ae").TorchHAE):
        def latents(self, x):
            mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
            embedded = self.stem(((x + 1) / 2 - mean) / std)["tokens"]
            vit, (height, width) = self.dino_model, embedded.shape[2:]
            first = torch.cat([vit.cls_token, vit.storage_tokens], dim=1).expand(len(x), -1, -1)
            tokens = torch.cat([first, embedded.flatten(2).mT], 1)
            rope = vit.rope_embed(height, width)
            for block in vit.blocks:
                tokens = block(tokens, rope)
            return vit.norm(tokens)[:, first.shape[1] :].mT.unflatten(2, (height, width))

    model = Whole((1024, 1024, 512, 512, 256), (3, 3, 3, 5, 5))
    vit = from_tests("originals_dino").TorchDINOv3(1024, 24, 16)
    vit.patch_embed = model.dino_model.patch_embed
    model.dino_model = vit
    return model


if __name__ == "__main__":
    run_command(main)
