"""Commands: overrides, --help, exit codes, and no traceback for a user error."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refusal_of

from sphere_jax import cli
from sphere_jax.cli import run_command
from sphere_jax.common.errors import UserError
from sphere_jax.config.config_files import load_config
from sphere_jax.training.signals import Interrupted

ROOT = Path(__file__).parents[1]
FILE = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict({
        "stages": ("vae", "flow"),
        "tokenizer": {"widths": [8, 16], "patch": 4},
        "sampler": {"guidance": 2},
        "vae": {"method": "vae"},
        "flow": {"method": "flow", "steps": 5},
        "decoder": {"steps": 3},
    })
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("flow.steps=7", lambda c: c.stage("flow").steps, 7),
        ("flow.batch_size=16", lambda c: c.stage("flow").batch_size, 16),  # left at its default
        ("flow.optimizer.b1=0.5", lambda c: c.stage("flow").optimizer.b1, 0.5),  # group left out
        ("evaluation.samples=0", lambda c: c.evaluation.samples, 0),
        ("sampler.guidance=1.5", lambda c: c.sampler.guidance, 1.5),  # an int in the file
        ("data.flip=true", lambda c: c.data.flip, True),
        ("data.path=123", lambda c: c.data.path, "123"),
        ("data.path='a b'", lambda c: c.data.path, "a b"),
        ("data.path=a=b", lambda c: c.data.path, "a=b"),
        ("data.channels=3", lambda c: c.data.channels, 3),
        ("space.path=linear", lambda c: c.space.path, "linear"),
        ("tokenizer.widths=4,8", lambda c: c.tokenizer.widths, (4, 8)),
        ("tokenizer.widths=(32,)", lambda c: c.tokenizer.widths, (32,)),
        ("stages=vae", lambda c: c.stages, ("vae",)),
        ("stages=('vae', 'flow')", lambda c: c.stages, ("vae", "flow")),
        ("seed=3", lambda c: c.seed, 3),
    ],
)
def test_overrides(file, override, read, value):
    assert read(load_config(file)) != value or override.startswith("stages=('vae'")
    got = read(load_config(file, [f"--config.{override}"]))
    assert got == value and type(got) is type(value)


def test_later_overrides_win(file):
    both = ["--config.flow.steps=7", "--config.flow.steps=9"]
    assert load_config(file, both).stage("flow").steps == 9


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("flow.stepz=7", "config.flow has no 'stepz'; did you mean 'steps'?"),
        ("flwo.steps=7", "config has no 'flwo'; did you mean 'flow'?"),
        ("flwo.method=flow", "config has no 'flwo'; did you mean 'flow'?"),
        ("flow.optimizer.b3=0.1", "has no 'b3'; known: b1, b2"),
        ("flow.steps.more=7", "config.flow.steps is a value, not a group."),
        ("flow=7", "config.flow is a group; set one of its values"),
        ("sampler=7", "config.sampler is a group"),
        ("flow.steps", "--config.flow.steps needs a value: --config.flow.steps=VALUE."),
        ("flow.steps=many", "config.flow.steps must be int, not 'many'."),
        ("flow.steps=", "config.flow.steps must be int, not ''."),
        ("data.flip=1", "config.data.flip must be True or False, not '1'."),
        ("sampler.guidance=high", "config.sampler.guidance must be float, not 'high'."),
        ("tokenizer.widths=4,x", "config.tokenizer.widths must be int, not 'x'."),
        ("data.channels=2", "config.data.channels='2' must be one of 1, 3."),
        ("vae.steps=0", "config.vae.steps=0 must be at least 1."),
    ],
)
def test_wrong_overrides(file, override, sentence):
    with pytest.raises(UserError, match=".") as caught:
        load_config(file, [f"--config.{override}"])
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("def get_config(): return 1 / 0", "does not run (ZeroDivisionError"),
        ("x = 1", "does not run (AttributeError"),
        ("def get_config(:", "does not run (SyntaxError"),
        ("def get_config(): return 3", "must return a ConfigDict"),
    ],
)
def test_config_files_that_do_not_run(tmp_path, content, sentence):
    (tmp_path / "broken.py").write_text(content)
    with pytest.raises(UserError) as caught:
        load_config(str(tmp_path / "broken.py"))
    assert sentence in str(caught.value)


def test_files_that_are_no_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="known: .*configs/mnist_slerp.py"):
        load_config("configs/mnist.py")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="must be a Python file"):
        load_config(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (UserError("Fix this."), 2, "error: Fix this."),
        (Interrupted("flow: saved at step 3 of 9"), 130, "resumes from there"),
        (KeyboardInterrupt(), 130, "resumes from what is saved"),
    ],
)
def test_exit_codes(capsys, monkeypatch, raised, code, message):
    monkeypatch.setattr(sys, "argv", ["command"])

    def main(argv):
        raise raised

    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    assert stopped.value.code == code and message in capsys.readouterr().err


def test_a_closed_pipe_gives_no_traceback():
    """As `| head` does."""
    code = "print('line\\n' * 10**5)"
    script = f"from sphere_jax.cli import run_command; run_command(lambda _: {code})"
    line = [sys.executable, "-c", script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, cwd=ROOT, **pipes) as command:
        command.stdout.readline()
        command.stdout.close()
        assert command.wait(120) == 1 and command.stderr.read() == b""


def test_other_exceptions_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])

    def main(argv):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_command(main)


def test_only_the_sampler_flags_that_were_given():
    flags = cli.Parser("", "", samples=True)
    given = flags.parse_sampler(["--steps=3", "--batch=7", "--guidance=0", "--solver", "heun"])
    numbers = {"steps": 3, "batch_size": 7, "guidance": 0.0}
    assert given.sampler == numbers | {"solver": "heun"}
    with pytest.raises(SystemExit, match="2"):
        flags.parse_sampler(["--steps=3", "heun"])


def test_sampler_options_of_all_methods_are_listed():
    text = cli.Parser("What it does.", "examples", samples=True).format_help()
    assert "--solver" in text and "(flow)" in text
    assert text.endswith(f"examples\n{cli.EXIT_CODES}\n")
    assert "--strength" in text and "(sphere_encoder, sphere_latent)" in text


def test_the_package_lists_and_runs_its_commands(monkeypatch, capsys):
    from sphere_jax import __main__ as package

    monkeypatch.setattr(sys, "argv", ["sphere_jax"])
    package.main()
    listed = capsys.readouterr().out
    assert "  sample    Draws samples from a trained run" in listed and "  cli " not in listed
    monkeypatch.setattr(sys, "argv", ["sphere_jax", "convert", "--out=x.npz"])
    with pytest.raises(SystemExit, match="2"):
        package.main()
    assert "must name a .safetensors file" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["sphere_jax", "smaple"])
    with pytest.raises(SystemExit, match="2"):
        package.main()
    assert "no command 'smaple'; did you mean 'sample'?" in capsys.readouterr().err


SHELL = [
    "main",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("sample", "evaluate", "compare")),
]


@pytest.mark.parametrize("command", SHELL)
def test_help_and_errors_from_the_shell(command):
    def run(*flags):
        line = [sys.executable, "-m", f"sphere_jax.{command}", *flags]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)

    helped = run("--help")
    assert helped.returncode == 0 and "usage:" in helped.stdout and not helped.stderr
    refused = run("--workdri=x")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("main", ["--config=C"]),
        ("main", ["--config=C", "--workdir=C"]),
        ("sample", ["--workdir=C", "--out=x.png"]),
        ("sample", ["--workdir=w", "--out=C"]),
        ("sample", ["--workdir=w", "--out=x.png", "--weights=C"]),
        ("edit", ["reconstruct", "--workdir=w", "--out=x.png", "--images", "a.png", "C"]),
        ("edit", ["manipulate", "--workdir=w", "--out=x.png", "--direction=C"]),
        *(("evaluate", [f"--{flag}=C"]) for flag in ("samples", "reference", "data_path", "out")),
        ("compare", ["--config=c", "--workdir=w", "--arms=C"]),
        ("convert", ["--from", "a", "C"]),
        ("convert", ["--out=C"]),
        ("ema", ["--workdir=C"]),
        ("prepare", ["latents", "--config=c", "--out=C"]),
        *(("probe", [f"--{flag}=C"]) for flag in ("lpips", "pretrained", "data_path", "out")),
    ],
)
def test_variables_in_paths_of_flags(monkeypatch, command, flags):
    monkeypatch.delenv("NOT_SET", raising=False)
    main = importlib.import_module(f"sphere_jax.{command}").main
    flags = [flag.replace("C", "${NOT_SET}/x") for flag in flags]
    assert "needs $NOT_SET, which is not set" in refusal_of(main, flags)
