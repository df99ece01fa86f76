"""Commands: overrides, --help, exit codes, and no traceback for a user error."""

import contextlib
import dataclasses
import errno
import importlib
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refusal_of

from sphere_jax import cli, main
from sphere_jax.cli import run_command
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import expand_path
from sphere_jax.common.flags import any_method, number, whole
from sphere_jax.common.interruption import SIGNALS, Interrupted
from sphere_jax.config import option_reference
from sphere_jax.config.config_files import find_file, load_config
from sphere_jax.data.class_names import Classes, parse_labels

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


@pytest.fixture(autouse=True)
def commands_end_by_an_exception(monkeypatch):
    """And leave signals to pytest."""
    monkeypatch.setattr(cli, "end_at_once", sys.exit)
    before = {each: signal.getsignal(each) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


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
        ("vae.steps=-1", "config.vae.steps=-1 must be at least 0."),
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
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="must be a Python file"):
        load_config(str(tmp_path / "notes.txt"))
    assert "is a folder" in refusal_of(load_config, tmp_path)


def test_configs_by_name(tmp_path, monkeypatch):
    """Those in configs/ of the working directory come before the package's own."""
    monkeypatch.chdir(tmp_path)
    assert load_config("mnist_slerp") == load_config(ROOT / "configs" / "mnist_slerp.py")
    for wrong in ("mnist_slrp", "configs/mnist_slerp.py", "no/where/mnist_slerp.py"):
        assert (
            refusal_of(load_config, wrong)
            == f"There is no file '{wrong}'; did you mean 'mnist_slerp'?"
        )
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mnist_slerp.py").write_text(FILE)
    assert load_config("mnist_slerp").stage("flow").steps == 5
    assert len(find_file("paths", "configs/arms").read_text()) > 100


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


@pytest.mark.parametrize("set_up", ["explicit", "slurm"])
def test_a_command_of_one_process_is_refused_in_several(capsys, monkeypatch, set_up):
    """Each would write the same files. Those that share their work are not, nor is one task."""
    if set_up == "slurm":
        for name in ("JOB_ID", "PROCID", "LOCALID"):
            monkeypatch.setenv(f"SLURM_{name}", "0")
        monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-2]")
        monkeypatch.setenv("SPHERE_JAX_POD", "1")
        count = "SLURM_NTASKS"
    else:
        monkeypatch.setenv("SPHERE_JAX_COORDINATOR", "127.0.0.1:1")
        monkeypatch.setenv("SPHERE_JAX_PROCESS", "0")
        count = "SPHERE_JAX_PROCESSES"
    monkeypatch.setattr(sys, "argv", ["sphere_jax ema"])
    called = []
    monkeypatch.setenv(count, "2")
    with pytest.raises(SystemExit) as stopped:
        run_command(called.append)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and not called and said.count("\n") == 1
    assert said.startswith("error: sphere_jax ema runs in one process, and 2 are set up here")
    run_command(cli.joins_processes(lambda argv: called.append(argv)))
    monkeypatch.setenv(count, "1")
    run_command(called.append)
    assert called == [[], []]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("no")])
def test_the_other_processes_are_told_of_any_error(monkeypatch, error):
    """One that users cannot mend, too: they would wait for this process otherwise."""
    told = []
    monkeypatch.setattr(cli.peers, "leave", lambda kind, **_: told.append(kind) or "")

    @cli.joins_processes
    def main(argv):
        raise error

    with pytest.raises(type(error)):
        run_command(main)
    assert told == ["error"]


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
    flags = cli.Parser("", "", samples=any_method)
    given = flags.parse_sampler(["--steps=3", "--batch=7", "--guidance=0", "--solver", "heun"])
    numbers = {"steps": 3, "batch_size": 7, "guidance": 0.0}
    assert given.sampler == numbers | {"solver": "heun"}
    for wrong, sentence in [
        (["--steps=3", "heun"], "'heun' belongs to no flag; a flag is written --NAME=VALUE."),
        (["--solver"], "--solver needs a value: --solver=VALUE."),
        (["--stepz=3"], "There is no flag --stepz; did you mean '--steps'?"),
        (["--batch=x"], "--batch must be a whole number, not 'x'."),
        (["--guidance=inf"], "--guidance must be a finite number, not 'inf'."),
    ]:
        assert refusal_of(flags.parse_sampler, wrong) == sentence


def test_what_is_wrong_with_a_flag_is_one_sentence():
    flags = cli.Parser("")
    flags.add_argument("--out", required=True)
    flags.add_argument("--num", type=whole(1, 9), default=3)
    flags.add_argument("--width", type=number(0.0))
    flags.add_argument("--force", action="store_true")
    flags.add_choice("--path", ("lerp", "slerp"), default="lerp")
    for given, sentence in [
        ([], "--out is missing; see --help."),
        (["--ouf=x"], "There is no flag --ouf; did you mean '--out'?"),
        (["--out="], "--out is empty; give it a value."),
        (["--out"], "--out needs a value: --out=VALUE."),
        (["--out=x", "--num=0"], "--num must be a whole number, 1 to 9, not '0'."),
        (["--out=x", "--num=1.5"], "--num must be a whole number, 1 to 9, not '1.5'."),
        (["--out=x", "--width=nan"], "--width must be a finite number of at least 0.0, not 'nan'."),
        (["--out=x", "--force=yes"], "--force takes no value; write it alone."),
        (["--out=x", "--path=slurp"], "--path must be one of 'lerp', 'slerp', not 'slurp'."),
        (["--out=x", "-num", "3"], "There is no flag -num; did you mean '--num'?"),
        (["--out=x", "y"], "'y' belongs to no flag; a flag is written --NAME=VALUE."),
    ]:  # fmt: skip
        assert refusal_of(flags.parse_args, given) == sentence
    assert flags.parse_args(["--out=x"]).num == 3
    shown = " ".join(flags.format_help().split())
    assert "(default 3)" in shown and "(default lerp)" in shown and "(default False)" not in shown


@pytest.mark.parametrize(
    "give",
    [
        lambda file, long: main.main([f"--config={long}"]),
        lambda file, long: main.main([f"--config.{long}=3", f"--config={file}"]),
        lambda file, long: main.main([f"--{long}", f"--config={file}"]),
        lambda file, long: main.main([f"--help={long}"]),
        lambda file, long: load_config(file, [f"--config.flow.steps={long}"]),
        lambda file, long: load_config(file, [f"--config.space.path={long}"]),
        lambda file, long: load_config(file, [f"--config.data.source={long}"]),
        lambda file, long: load_config(file, [f"--config.stages={long}"]),
        lambda file, long: parse_labels(long, Classes(3)),
        lambda file, long: expand_path(f"${long}"),
    ],
)
@pytest.mark.parametrize("long", ["x" * 100_000, "x y " * 25_000], ids=["word", "words"])
def test_messages_quote_little_of_what_was_given(file, give, long):
    sentence = refusal_of(give, file, long)
    assert len(sentence) <= 700 and sentence.count("x") <= 260


def test_messages_are_one_printable_line():
    assert str(UserError("a\nb\x1b[31m c")) == "a b\\x1b[31m c"
    assert len(str(UserError("word " * 10_000))) == 999


def test_help_names_the_sampler_options_of_each_method():
    text = cli.Parser("What it does.", "examples", samples=any_method).format_help()
    flow, encoder = text.index("of flow runs:"), text.index("of sphere_encoder runs:")
    assert flow < text.index("--solver") < encoder < text.index("--guidance_at")
    assert text.endswith(f"examples\n{cli.EXIT_CODES}\n")


COMMANDS = [
    *("main", "sample", "evaluate", "compare", "convert", "ema", "probe", "preflight", "rehearse"),
    *(f"edit {action}" for action in ("reconstruct", "interpolate", "crossover", "manipulate")),
    *(f"prepare {action}" for action in ("latents", "images", "statistics")),
]


@pytest.fixture(scope="module")
def helps():
    """The help of every command and action."""
    found = {}
    for line in COMMANDS:
        command, *action = line.split()
        with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
            importlib.import_module(f"sphere_jax.{command}").main([*action, "--help"])
        assert end.value.code == 0
        found[line] = out.getvalue()
    return found


def test_every_action_has_its_own_help_with_defaults(helps, capsys):
    assert len(set(helps.values())) == len(COMMANDS)
    assert "--columns" in helps["edit interpolate"] and "(default 16)" in helps["edit interpolate"]
    assert "--columns" not in helps["edit crossover"] and "(default 10)" in helps["edit crossover"]
    assert "--columns" not in helps["edit reconstruct"]
    assert "of sphere_encoder runs:" not in helps["edit reconstruct"]  # uses no sampler
    assert "--solver" not in helps["edit manipulate"]
    assert "(default 1024)" in helps["prepare images"] and "--dtype" not in helps["prepare images"]
    assert "(default 64)" in helps["sample"] and "(default 1000)" in helps["evaluate"]
    for command in ("edit", "prepare"):
        module = importlib.import_module(f"sphere_jax.{command}")
        for flags in ([], ["--help"]):
            module.main(flags)
            shown = capsys.readouterr().out
            assert all(action.split()[1] in shown for action in COMMANDS if command in action)
        first = COMMANDS[-1].split()[1] if command == "prepare" else "crossover"
        assert f"did you mean '{first}'?" in refusal_of(module.main, [f"{first[:-1]}x"])
        assert "The action comes before --out=x" in refusal_of(module.main, ["--out=x", first])


def test_options_by_group(capsys):
    main.main(["--help=flow"])
    shown = capsys.readouterr().out
    assert "time_density: str = 'uniform', uniform, logit_normal" in shown and "batch_size" in shown
    main.main(["--help=model.sit"])
    assert "learn_sigma" in capsys.readouterr().out
    main.main(["--help=config.flow.optimizer"])
    assert "weight_decay" in capsys.readouterr().out
    assert "did you mean 'sampler.flow'?" in refusal_of(main.main, ["--help=sampler.flwo"])


def test_the_page_of_options_is_current():
    """If not: python -m sphere_jax.main --help=all > docs/options.md"""
    written = (ROOT / "docs" / "options.md").read_text()
    assert written.rstrip() == option_reference.page().rstrip()


def test_every_option_has_a_meaning():
    for name, section in option_reference.sections().items():
        for field in dataclasses.fields(section.options):
            about = field.metadata.get("help")
            assert about is None or about.strip(), f"{name}: {field.name}"


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
        ("edit", ["manipulate", "--workdir=w", "--out=x.png", "--labels=1", "--direction=C"]),
        *(("evaluate", [f"--{flag}=C"]) for flag in ("samples", "reference", "data_path", "out")),
        ("compare", ["--config=c", "--workdir=w", "--arms=C"]),
        ("convert", ["--from", "a", "C"]),
        ("convert", ["--out=C"]),
        ("ema", ["--workdir=C"]),
        *(("preflight", [f"--{flag}=C"]) for flag in ("config", "workdir", "out")),
        ("prepare", ["latents", "--config=c", "--out=C"]),
        *(("probe", [f"--{flag}=C"]) for flag in ("lpips", "pretrained", "data_path", "out")),
    ],
)
def test_variables_in_paths_of_flags(monkeypatch, command, flags):
    monkeypatch.delenv("NOT_SET", raising=False)
    main = importlib.import_module(f"sphere_jax.{command}").main
    flags = [flag.replace("C", "${NOT_SET}/x") for flag in flags]
    assert "needs $NOT_SET, which is not set" in refusal_of(main, flags)
