"""What no single value of a config shows: options that must fit each other."""

from sphere_jax.errors import UserError
from sphere_jax.options import (
    RAW_PATHS,
    Config,
    ConvVAETokenizer,
    DecoderStage,
    FlowSampler,
    FlowStage,
    KLVAETokenizer,
    PrecomputedTokenizer,
    RAETokenizer,
    SphereEncoderStage,
    SphereEncoderTokenizer,
    SphereLatentStage,
    Stage,
    TinyVAETokenizer,
)

ON_LATENTS = ("flow", "sphere_latent")  # methods that train without images
LATENT_SOURCES = ("latents", "cache")
SIZE = ("width", "depth", "heads")  # what a published size stands for
ALEXNET_SIDE = 31  # pixels that LPIPS-AlexNet needs; models stand on a higher floor
TRAINED = {"vae": ConvVAETokenizer, "sphere_encoder": SphereEncoderTokenizer}  # by a method


def check_together(config: Config) -> None:
    """Raises UserError, one sentence, for the first thing that does not go with another."""
    _check_tokenizer(config)
    for name, stage in config.groups.items():
        _check_stage(config, name, stage)
    _check_sampler(config)


def check(holds: bool, sentence: str) -> None:
    if not holds:
        raise UserError(sentence)


def _check_tokenizer(config: Config) -> None:
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


def _check_sampler(config: Config) -> None:
    first = config.stage(config.stages[0]).method
    if isinstance(config.sampler, FlowSampler):
        check(
            config.sampler.guidance_low <= config.sampler.guidance_high,
            "config.sampler.guidance_low must not exceed guidance_high.",
        )
        check(
            config.sampler.auto_guidance == "" or config.sampler.guidance != 1.0,
            f"config.sampler.auto_guidance={config.sampler.auto_guidance} does nothing at guidance "
            "1, which is off: set config.sampler.guidance above 1, or auto_guidance to ''.",
        )
        check(
            config.sampler.decode_radius == 0.0
            or (config.space.path not in RAW_PATHS and config.space.sphere == "token"),
            "config.sampler.decode_radius needs tokens of one radius: config.space.sphere='token' "
            "and a path that ends there, not 'linear' or 'polar'.",
        )
    generator = config.groups.get(config.generator)
    check(
        config.sampler.guidance == 1.0
        or getattr(config.sampler, "auto_guidance", "") != ""
        or getattr(generator, "label_dropout", 1.0) > 0.0
        or getattr(generator, "pretrained", "") != "",
        f"config.sampler.guidance={config.sampler.guidance:g} guides away from the network without "
        f"a class, which config.{config.generator}.label_dropout=0 does not train: set it to 0.1, "
        "or guidance to 1.",
    )
    unconditional = getattr(config.tokenizer, "conditional", True) is False
    check(
        not unconditional or first != config.generator or config.sampler.guidance == 1.0,
        "config.sampler.guidance needs classes, and config.tokenizer.conditional is False.",
    )
    check(
        all(steps > 0 for steps in config.evaluation.at_steps),
        f"config.evaluation.at_steps={config.evaluation.at_steps} must hold positive numbers.",
    )
    _check_evaluation(config)


def _check_evaluation(config: Config) -> None:
    evaluation = config.evaluation
    check(
        config.data.source == "cache" or evaluation.data_source == evaluation.data_path == "",
        "config.evaluation.data_source and data_path name the images of config.data.source='cache';"
        f" '{config.data.source}' is scored against config.data itself.",
    )
    check(
        evaluation.samples == 0
        or evaluation.samples > evaluation.neighbours
        or config.data.source == "latents",  # drawn, not scored
        f"config.evaluation.samples={evaluation.samples} must be more than "
        f"neighbours={evaluation.neighbours}, or 0 to score none.",
    )
    check(
        evaluation.every == 0 or evaluation.curve_samples > evaluation.neighbours,
        f"config.evaluation.curve_samples={evaluation.curve_samples} must be more than "
        f"neighbours={evaluation.neighbours}.",
    )
    check(
        evaluation.every == 0 or config.data.source != "latents",
        "config.evaluation.every needs images to score against; config.data.source='latents' has "
        "none.",
    )
    measured = any(isinstance(stage, DecoderStage) for stage in config.groups.values())
    check(
        evaluation.lpips == "" or measured,
        "config.evaluation.lpips needs a 'decoder' stage, which measures it.",
    )
    check(
        evaluation.lpips == "" or config.data.image_size >= ALEXNET_SIDE,
        f"config.evaluation.lpips needs config.data.image_size of at least {ALEXNET_SIDE}.",
    )
    published = evaluation.features != "small_classifier"
    check(
        evaluation.pretrained == "" or published,
        "config.evaluation.pretrained holds weights of published config.evaluation.features.",
    )


def _check_stage(config: Config, name: str, stage: Stage) -> None:
    kind = TRAINED.get(stage.method, type(config.tokenizer))
    check(
        isinstance(config.tokenizer, kind),
        f"config.{name} trains config.tokenizer.name='{kind.name}', not '{config.tokenizer.name}'.",
    )
    check(
        stage.batch_size % stage.accumulate == 0,
        f"config.{name}.batch_size={stage.batch_size} must be a multiple of "
        f"accumulate={stage.accumulate}.",
    )
    widths = stage.ema_profiles
    check(
        all(0.0 < width < 0.288 for width in widths) and len(set(widths)) == len(widths),
        f"config.{name}.ema_profiles={widths} must hold different widths between 0 and 0.288.",
    )
    check(
        (len(widths) > 0) == (stage.ema_snapshot_every > 0),
        f"config.{name}.ema_profiles and ema_snapshot_every go together.",
    )
    check(
        len(widths) == 0 or stage.method in ON_LATENTS,
        f"config.{name}.ema_profiles are combined by sphere_jax.ema for networks on latents: leave "
        f"it out of a '{stage.method}' stage.",
    )
    optimizer = stage.optimizer
    check(
        optimizer.schedule != "constant"
        or optimizer.constant_steps == optimizer.fall_steps == optimizer.hold == 0
        and optimizer.final_fraction == 0.0,
        f"config.{name}.optimizer: constant_steps, fall_steps, hold and final_fraction need a "
        f"schedule that falls: config.{name}.optimizer.schedule='linear', say.",
    )
    check(
        optimizer.fall_steps == 0 or optimizer.hold == 0,
        f"config.{name}.optimizer.fall_steps and hold both say where the fall ends; give one.",
    )
    check(
        optimizer.constant_steps == 0
        or optimizer.fall_steps > 0  # perhaps beyond the end of the stage
        or optimizer.warmup + optimizer.constant_steps + optimizer.hold < stage.steps
        or stage.steps == 0,
        f"config.{name}.optimizer: warmup, constant_steps and hold leave none of {stage.steps} "
        "steps for the rate to fall in.",
    )
    trained = [s for s in config.stages if config.stage(s).method not in ON_LATENTS]
    check(
        not config.data.flip
        or config.data.source == "cache"
        or bool(trained)
        or getattr(stage, "encode", "") == "every_step",
        f"config.data.flip=True does nothing to latents that are encoded once: set config.{name}."
        "encode='every_step', or encode both flips by sphere_jax.prepare latents.",
    )
    check(
        getattr(stage, "encode", "once") == "once" or config.data.source != "latents",
        f"config.{name}.encode='every_step' needs images; config.data.source="
        f"'{config.data.source}' has latents.",
    )
    check(
        stage.steps > 0 or stage.pretrained != "",
        f"config.{name}.steps=0 takes config.{name}.pretrained as it is, and that is empty.",
    )
    denoiser = config.model.name == "denoiser"
    if isinstance(stage, DecoderStage):
        _check_decoder(config, name, stage)
    if isinstance(stage, FlowStage):
        check(not denoiser, f"config.{name} needs a model with time: config.model.name='sit', say.")
        check(
            getattr(config.model, "clock", "") != "unit_sphere"
            or (
                config.space.path not in RAW_PATHS
                and config.space.sphere == "token"
                and config.space.radius == 0.0
            ),
            "config.model.clock='unit_sphere' says velocities of tokens in units of their radius "
            "sqrt(d): config.space.sphere='token', radius=0 and a path on spheres.",
        )
        check(
            stage.loss_weight == "none" or config.space.path == "slerp",
            f"config.{name}.loss_weight='{stage.loss_weight}' measures arcs of a sphere: "
            "config.space.path='slerp'.",
        )
        check(
            stage.time_low < stage.time_high,
            f"config.{name}.time_low must be below time_high.",
        )
        check(
            stage.time_density != "uniform" or (stage.time_mean, stage.time_std) == (0, 1),
            f"config.{name}.time_mean and time_std need config.{name}.time_density='logit_normal', "
            "truncated or not.",
        )
        check(
            stage.time_density != "logit_normal" or (stage.time_low, stage.time_high) == (0, 1),
            f"config.{name}.time_low and time_high need "
            f"config.{name}.time_density='truncated_logit_normal'.",
        )
    if isinstance(stage, SphereLatentStage):
        check(denoiser, f"config.{name} needs config.model.name='denoiser', which takes no time.")
        check(
            config.space.path not in (*RAW_PATHS, "data_projected")
            and config.space.sphere == "global",
            f"config.{name} lives on the global sphere: config.space.sphere='global' and a path "
            "with noise on it, say 'slerp'.",
        )
    if isinstance(stage, SphereEncoderStage):
        check(
            stage.batch_size % stage.strata == 0,
            f"config.{name}.batch_size={stage.batch_size} must be a multiple of "
            f"strata={stage.strata}.",
        )


def _check_decoder(config: Config, name: str, stage: DecoderStage) -> None:
    adversarial = stage.adversarial_weight > 0
    judge = (stage.discriminator, stage.dino, stage.discriminator_rate, stage.adversarial_from)
    check(
        adversarial or judge == ("patch", "", 1.0, 0),
        f"config.{name}.adversarial_weight=0 has no discriminator: set it to 0.5, say, or leave "
        "discriminator, dino, discriminator_rate and adversarial_from as they are.",
    )
    check(
        not adversarial or stage.adversarial_from < stage.steps,
        f"config.{name}.adversarial_from={stage.adversarial_from} is past the last of "
        f"{stage.steps} steps: the discriminator would count for nothing.",
    )
    check(
        stage.lpips == "" or stage.lpips_weight > 0,
        f"config.{name}.lpips_weight=0 leaves config.{name}.lpips out: set one of both.",
    )
    check(
        stage.l1_weight + stage.l2_weight > 0 or stage.lpips != "",
        f"config.{name} has no reconstruction loss: l1_weight, l2_weight or lpips must be on.",
    )
    check(
        stage.measured != 1,
        f"config.{name}.measured=1 has no spread; give 2 or more held-out images, or 0 for all.",
    )
    check(
        not adversarial or (stage.discriminator == "dino") == (stage.dino != ""),
        f"config.{name}.discriminator='dino' and config.{name}.dino, the weights of DINO ViT-S/8, "
        "go together.",
    )
    smallest = 32 if adversarial else 16 if stage.lpips else 0  # sides that the networks take
    check(
        config.data.image_size >= smallest,
        f"config.data.image_size={config.data.image_size} is too small for what judges config."
        f"{name}: at least {smallest} pixels.",
    )
