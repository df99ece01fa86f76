"""A stage with its tokenizer, its space, its network and itself."""

from sphere_jax.config.checks.check import ON_LATENTS, check
from sphere_jax.config.options import (
    RAW_PATHS,
    Config,
    ConvVAETokenizer,
    DecoderStage,
    FlowStage,
    SphereEncoderStage,
    SphereEncoderTokenizer,
    SphereLatentStage,
    Stage,
)

TRAINED = {"vae": ConvVAETokenizer, "sphere_encoder": SphereEncoderTokenizer}  # by a method


def check_stage(config: Config, name: str, stage: Stage) -> None:
    """Raises UserError."""
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
    _check_optimizer(name, stage)
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
        _check_flow(config, name, stage)
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


def _check_optimizer(name: str, stage: Stage) -> None:
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


def _check_flow(config: Config, name: str, stage: FlowStage) -> None:
    check(
        config.model.name != "denoiser",
        f"config.{name} needs a model with time: config.model.name='sit', say.",
    )
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
