"""What no single value of a config shows: options that must fit each other.

What concerns one method, tokenizer or network is checked in its own file (`check`); here is what
all of them share.
"""

import re
from dataclasses import fields

from sphere_jax.common import plugins
from sphere_jax.common.errors import UserError, quoted
from sphere_jax.config.options import Config, OptimizerOptions, StageOptions

SIZE = ("width", "depth", "heads")  # what a published size stands for
ALEXNET_SIDE = 31  # pixels that LPIPS-AlexNet needs; models/ is on a higher floor


def check(holds: bool, sentence: str) -> None:
    """Raises UserError with the sentence unless it holds."""
    if not holds:
        raise UserError(sentence)


def check_together(config: Config) -> None:
    """Raises UserError, one sentence, for the first options that do not fit each other."""
    for group in ("model", "tokenizer"):
        _check_size(group, getattr(config, group))
    _check_data(config)
    config.tokenizer_class.check(config)
    for name, stage in config.groups.items():
        _check_stage(config, name, stage)
        config.method(name).check(config, name)
    _check_sampler(config)
    _check_evaluation(config)
    _check_store(config.checkpoints.store)


def _check_size(group: str, sizes) -> None:
    """A published size, or width, depth and heads. Nothing for options without them."""
    if not {"size", *SIZE} <= vars(sizes).keys():
        return
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


def _check_data(config: Config) -> None:
    """The tokenizer has what it encodes, and a stage or a file that gives its weights."""
    data, tokenizer, name = config.data, config.tokenizer_class, config.tokenizer.name
    first = config.method(config.stages[0])
    if config.trains_tokenizer and first.trains_tokenizer != name:
        fitting = " or ".join(f"'{method}'" for method in _methods_that_train(name))
        raise UserError(
            f"config.stages={config.stages} must begin with a {fitting} stage, which trains "
            f"config.tokenizer.name='{name}'; or config.tokenizer.pretrained names a run that did."
        )
    check(
        tokenizer.decodes or not config.source.holds_images,
        f"config.tokenizer.name='{name}' takes latents of another program, and "
        f"config.data.source='{data.source}' holds images.",
    )
    config.source.check(config)
    if data.random_crop:
        check(
            config.source.holds_images and config.source.read_in_batches,
            f"config.data.random_crop needs pictures in files: config.data.source="
            f"'{data.source}' has them at their size already, or none.",
        )
        check(
            len(data.random_crop) == 2
            and data.image_size <= data.random_crop[0] <= data.random_crop[1],
            f"config.data.random_crop={data.random_crop} must be two sides, the least and the "
            f"greatest, from image_size={data.image_size} on.",
        )
    if not tokenizer.decodes:
        trained = [stage for stage in config.stages if not config.method(stage).on_latents]
        check(not data.flip, "config.data.flip=True needs images; precomputed latents have none.")
        check(not trained, f"Stages {trained} need images; precomputed latents have none.")


def _methods_that_train(tokenizer: str) -> list[str]:
    known = plugins.known("methods", "METHOD")
    methods = {name: plugins.find("methods", "METHOD", name, name) for name in known}
    return [name for name, method in methods.items() if method.trains_tokenizer == tokenizer]


def _check_stage(config: Config, name: str, stage: StageOptions) -> None:
    method = config.method(name)
    check(
        method.trains_tokenizer in ("", config.tokenizer.name),
        f"config.{name} trains config.tokenizer.name='{method.trains_tokenizer}', not "
        f"'{config.tokenizer.name}'.",
    )
    check(
        method.trains_tokenizer == "" or config.trains_tokenizer,
        f"config.tokenizer.pretrained gives the weights that config.{name} trains: leave '{name}' "
        f"out of config.stages, or start from them with config.{name}.pretrained instead.",
    )
    check(
        stage.steps > 0 or stage.pretrained != "",
        f"config.{name}.steps=0 uses config.{name}.pretrained unchanged, but it is empty.",
    )
    check(
        not stage.pretrained_anyway or (stage.pretrained != "" and stage.steps > 0),
        f"config.{name}.pretrained_anyway trains on from config.{name}.pretrained: give that, and "
        "steps above 0.",
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
        len(widths) == 0 or method.on_latents,
        f"config.{name}.ema_profiles are combined by sphere_jax.ema for networks on latents: leave "
        f"it out of a '{stage.method}' stage.",
    )
    _check_optimizer(name, stage.steps, stage.optimizer)


def _check_optimizer(name: str, steps: int, optimizer: OptimizerOptions) -> None:
    muon = {field.name for field in fields(OptimizerOptions) if field.name.startswith("muon_")}
    idle = [key for key in muon if getattr(optimizer, key) != getattr(OptimizerOptions(), key)]
    check(
        optimizer.matrices == "muon" or not idle,
        f"config.{name}.optimizer.{min(idle, default='')} needs "
        f"config.{name}.optimizer.matrices='muon'.",
    )
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
        or optimizer.warmup + optimizer.constant_steps + optimizer.hold < steps
        or steps == 0,
        f"config.{name}.optimizer: warmup, constant_steps and hold leave none of {steps} "
        "steps for the rate to fall in.",
    )


def _check_sampler(config: Config) -> None:
    if config.generator is None:
        return
    name, sampler, method = config.generator, config.sampler, config.method(config.generator)
    method.check_sampler(config)
    check(
        sampler.guidance == 1.0 or sampler.weaker_run != "" or method.has_null_label(config, name),
        f"config.sampler.guidance={sampler.guidance:g} guides away from the network without a "
        f"class, which config.{name}.label_dropout=0 does not train: set it to 0.1, or guidance "
        "to 1.",
    )


def _check_evaluation(config: Config) -> None:
    evaluation, source = config.evaluation, config.source
    drawn_only = not config.tokenizer_class.decodes  # drawn, not scored
    fewest = type(config.sampler).__dataclass_fields__["steps"].metadata["low"]
    check(
        all(steps >= fewest for steps in evaluation.at_steps),
        f"config.evaluation.at_steps={evaluation.at_steps} must hold numbers from {fewest} on.",
    )
    check(
        source.made_of_images or evaluation.data_source == evaluation.data_path == "",
        "config.evaluation.data_source and data_path name the images of config.data.source='cache';"
        f" '{config.data.source}' is scored against config.data itself.",
    )
    check(
        evaluation.samples == 0 or evaluation.samples > evaluation.neighbours or drawn_only,
        f"config.evaluation.samples={evaluation.samples} must be more than "
        f"neighbours={evaluation.neighbours}, or 0 to score none.",
    )
    check(
        evaluation.every == 0 or evaluation.curve_samples > evaluation.neighbours,
        f"config.evaluation.curve_samples={evaluation.curve_samples} must be more than "
        f"neighbours={evaluation.neighbours}.",
    )
    check(
        evaluation.every == 0 or not drawn_only,
        "config.evaluation.every needs images to score against; config.data.source="
        f"'{config.data.source}' has none.",
    )
    check(
        evaluation.every > 0 or (evaluation.keep_best, evaluation.curve_weights) == ("", "used"),
        "config.evaluation.keep_best and curve_weights are about scores while a stage trains: set "
        "config.evaluation.every to the steps between them.",
    )
    check(
        evaluation.keep_best != "class_agreement" or config.data.num_classes != 1,
        "config.evaluation.keep_best='class_agreement' needs two classes or more.",
    )
    measured = any(config.method(name).measures_fidelity for name in config.groups)
    check(
        evaluation.lpips == "" or measured,
        "config.evaluation.lpips needs a 'decoder' stage, which measures it.",
    )
    check(
        evaluation.lpips == "" or config.data.image_size >= ALEXNET_SIDE,
        f"config.evaluation.lpips needs config.data.image_size of at least {ALEXNET_SIDE}.",
    )
    check(
        evaluation.pretrained == "" or config.features.needs_weights,
        "config.evaluation.pretrained holds weights of published config.evaluation.features.",
    )


def _check_store(store: str) -> None:
    check(
        store == "" or re.fullmatch(r"gs://[^/]+/.*[^/]", store) is not None,
        f"config.checkpoints.store={quoted(store)} must be gs://BUCKET/FOLDER: checkpoints are "
        "written to folders and to Google Cloud Storage; mount another store, as S3, as a folder.",
    )
