"""A tokenizer with its data, its stages and the sizes of networks."""

from sphere_jax.config.checks.check import ON_LATENTS, check
from sphere_jax.config.options import (
    Config,
    ConvVAETokenizer,
    KLVAETokenizer,
    PrecomputedTokenizer,
    RAETokenizer,
    SphereEncoderTokenizer,
    TinyVAETokenizer,
)

SIZE = ("width", "depth", "heads")  # what a published size stands for


def check_tokenizer(config: Config) -> None:
    """Raises UserError."""
    model, data, tokenizer = config.model, config.data, config.tokenizer
    first = config.stage(config.stages[0]).method
    for group, sizes in (("model", model), ("tokenizer", tokenizer)):
        if hasattr(sizes, "heads"):
            free = type(sizes)()
            own = [key for key in SIZE if getattr(sizes, key) != getattr(free, key)]
            check(
                sizes.size == "" or not own,
                f"config.{group}.size='{sizes.size}' fixes width, depth and heads: set size to '' "
                f"to choose them, or leave config.{group}.{' and '.join(own)} out.",
            )
            check(
                sizes.size != "" or sizes.width % sizes.heads == 0,
                f"config.{group}.width={sizes.width} must be a multiple of heads={sizes.heads}.",
            )
    check(
        (tokenizer.name == "precomputed") == (data.source == "latents"),
        "config.data.source='latents' and config.tokenizer.name='precomputed' go together.",
    )
    if isinstance(tokenizer, PrecomputedTokenizer):
        check(
            len(tokenizer.latent_shape) == 3 and min(tokenizer.latent_shape) > 0,
            "config.tokenizer.latent_shape must be (h, w, d) for precomputed latents.",
        )
        check(not data.flip, "config.data.flip=True needs images; precomputed latents have none.")
        trained = [s for s in config.stages if config.stage(s).method not in ON_LATENTS]
        check(not trained, f"Stages {trained} need images; precomputed latents have none.")
    if data.source == "cache":
        check(
            isinstance(tokenizer, (KLVAETokenizer, TinyVAETokenizer, RAETokenizer)),
            "config.data.source='cache' holds latents of a published tokenizer, 'kl_vae', "
            f"'tiny_vae' or 'rae'; the weights of '{tokenizer.name}' are not known beforehand.",
        )
    if isinstance(tokenizer, ConvVAETokenizer):
        check(
            len(tokenizer.widths) > 0 and min(tokenizer.widths) > 0,
            f"config.tokenizer.widths={tokenizer.widths} must hold positive widths.",
        )
        check(
            first == "vae",
            f"config.stages={config.stages} must begin with a 'vae' stage, whose encoder the "
            "others need.",
        )
        fold = tokenizer.patch * 2 ** (len(tokenizer.widths) - 1)
        check(
            data.image_size % fold == 0,
            f"config.data.image_size={data.image_size} must be a multiple of {fold}, the "
            "tokenizer's downsampling.",
        )
    if isinstance(tokenizer, SphereEncoderTokenizer):
        check(
            first == "sphere_encoder",
            f"config.stages={config.stages} must begin with a 'sphere_encoder' stage, which trains "
            "that tokenizer.",
        )
        check(
            data.image_size % tokenizer.patch == 0,
            f"config.data.image_size={data.image_size} must be a multiple of "
            f"config.tokenizer.patch={tokenizer.patch}.",
        )
    if isinstance(tokenizer, KLVAETokenizer):
        check(
            tokenizer.pretrained_statistics == "" or tokenizer.kind != "flux2",
            "config.tokenizer.pretrained_statistics: kind='flux2' brings its own.",
        )
    if isinstance(tokenizer, RAETokenizer):
        check(
            tokenizer.pretrained_statistics == "" or tokenizer.whiten,
            "config.tokenizer.pretrained_statistics needs config.tokenizer.whiten=True, which "
            "normalises by them.",
        )
    if isinstance(tokenizer, (KLVAETokenizer, TinyVAETokenizer, RAETokenizer)):
        check(
            data.channels == 3,
            f"config.tokenizer.name='{tokenizer.name}' takes colour images: "
            "config.data.channels=3.",
        )
