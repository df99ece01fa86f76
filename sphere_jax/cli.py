"""What all commands share: config files with overrides, and errors as one sentence."""

import argparse
import itertools
import os
import sys
from collections.abc import Callable

import jax

from sphere_jax.common.errors import UserError
from sphere_jax.config.config_files import apply_override, load_config, parse_value
from sphere_jax.config.options import Config
from sphere_jax.config.reading import read_config, to_dict
from sphere_jax.training.signals import Interrupted


def run_command(main: Callable[[list[str]], None]) -> None:
    """Runs `main(argv)`: exit code 2 and a sentence for what the user can mend, 130 for a stop."""
    _set_precision()
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # as in `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Interrupted as stop:
        print(f"Stopped. {stop}. The same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print(
            "Stopped. The same command begins again, or goes on from what it has kept.",
            file=sys.stderr,
        )
        sys.exit(130)


def _set_precision() -> None:
    """float32 products in what PyTorch calls "high" (three passes of bfloat16 on TPU, TensorFloat32
    on GPU, exact on CPU): TPU's default is one pass of bfloat16. What is bfloat16 stays so, and
    JAX_DEFAULT_MATMUL_PRECISION, if set, is obeyed.
    """
    if jax.config.jax_default_matmul_precision is None:
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")


def parser(description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_sampler_flags(flags: argparse.ArgumentParser) -> None:
    """What `sample`, `evaluate` and `edit` let a user change about sampling."""
    flags.add_argument("--steps", type=int, help="from noise to data")
    flags.add_argument("--guidance", type=float, help="guidance scale; 1 is off")
    flags.add_argument("--batch", type=int, dest="batch_size", help="images at a time")
    flow = flags.add_argument_group("flow matching")
    flow.add_argument("--solver", choices=("euler", "heun", "midpoint", "multistep"))
    flow.add_argument("--t_end", type=float, help="where the last step ends; 0 is data")
    flow.add_argument("--guidance_low", type=float, help="guide from this time, 0 (data) to 1")
    flow.add_argument("--guidance_high", type=float, help="up to this one")
    flow.add_argument("--auto_guidance", metavar="RUN", help="folder of a weaker run to guide by")
    flow.add_argument("--decode_radius", type=float, help="of decoded tokens; 0: the space's own")
    few = flags.add_argument_group("few-step systems (Sphere Encoder, Sphere Latent Encoder)")
    few.add_argument("--strength", type=float, help="of the noise between steps, 0 to 1")
    few.add_argument("--schedule", choices=("fixed", "decreasing"), help="of the strength")
    few.add_argument(
        "--share_noise", type=_boolean, metavar="True|False", help="one noise for all steps"
    )
    few.add_argument(
        "--guidance_at", choices=("encoder", "decoder", "combo"), help="Sphere Encoder"
    )


SAMPLER_FLAGS = (
    "steps", "guidance", "batch_size", "solver", "t_end", "guidance_low", "guidance_high",
    "auto_guidance", "decode_radius", "strength", "schedule", "share_noise", "guidance_at",
)  # fmt: skip


SWEPT = (  # in one run by one set of weights; the first two compile nothing anew
    "guidance", "decode_radius", "guidance_low", "guidance_high", "solver", "steps", "t_end",
    "strength",
)  # fmt: skip


def add_weights_flag(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--weights", default="", metavar="F.safetensors",
        help="in the place of the network's own, say an average that sphere_jax.ema wrote",
    )  # fmt: skip


def sampler_options(arguments) -> dict:
    """The sampler values that were given, under their names in the config."""
    given = {name: getattr(arguments, name) for name in SAMPLER_FLAGS}
    return {name: value for name, value in given.items() if value is not None}


def sweep_configs(config: Config, sweeps: list[str]) -> list[tuple[dict[str, str], Config]]:
    """`(values, config)` for every combination of `KEY=VALUE,VALUE,...` of the sampler's options.
    Where the guidance scale is 1, which is off, no weaker run is guided by.

    Raises UserError for what cannot be swept and for values that the config refuses.
    """
    named, combinations = _swept(sweeps), []
    for values in itertools.product(*named.values()):
        raw = to_dict(config)
        for key, value in zip(named, values, strict=True):
            apply_override(raw, f"--config.sampler.{key}={value}")
        if raw["sampler"]["guidance"] == 1.0 and raw["sampler"].get("auto_guidance"):
            raw["sampler"]["auto_guidance"] = ""
        combinations.append((dict(zip(named, values, strict=True)), read_config(raw)))
    return combinations


def swept_guidance(sweeps: list[str]) -> float:
    """The first swept guidance scale that guides, or 1. Raises UserError as `sweep_configs`."""
    values = _swept(sweeps).get("guidance", ())
    return next((s for v in values if (s := parse_value("--sweep=guidance", v, float)) != 1.0), 1.0)


def _swept(sweeps: list[str]) -> dict[str, list[str]]:
    """{KEY: [VALUE, ...]} of `KEY=VALUE,VALUE,...`. Raises UserError for what cannot be swept."""
    named = {}
    for text in sweeps:
        key, equals, values = text.partition("=")
        if not equals or not values or key not in SWEPT or key in named:
            raise UserError(
                f"--sweep={text} must be KEY=VALUE,VALUE,..., each KEY once, of {', '.join(SWEPT)}."
            )
        named[key] = [value.strip() for value in values.split(",")]
    return named


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be True or False, not '{text}'")
    return text.lower() == "true"


def parse_labels(text: str, num_classes: int) -> list[int]:
    """The classes of "0,1,2"; `num_classes` is the null label. Raises UserError."""
    try:
        labels = [int(label) for label in text.split(",") if label.strip()]
    except ValueError:
        raise UserError(f"--labels={text} must be numbers, say 0,1,2.") from None
    if any(not 0 <= label <= num_classes for label in labels):
        raise UserError(
            f"--labels={text} must be 0..{num_classes - 1}, or {num_classes} for no class."
        )
    return labels


def parse_with_config(parser: argparse.ArgumentParser, argv: list[str]):
    """`(arguments, Config)`; `--config.a.b=v` overrides a value of the file `--config=FILE`."""
    overrides = [a for a in argv if a.startswith("--config.")]
    arguments = parser.parse_args([a for a in argv if not a.startswith("--config.")])
    return arguments, load_config(arguments.config, overrides)
