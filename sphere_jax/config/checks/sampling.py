"""Sampling and scoring with what they are of."""

from sphere_jax.config.checks.check import check
from sphere_jax.config.options import RAW_PATHS, Config, DecoderStage, FlowSampler

ALEXNET_SIDE = 31  # pixels that LPIPS-AlexNet needs; models stand on a higher floor


def check_sampler(config: Config) -> None:
    """Raises UserError."""
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


def check_evaluation(config: Config) -> None:
    """Raises UserError."""
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
