"""What the checks before a run say of hosts that are sound, and of those that are not."""

import json
import socket

import jax
import pytest
import tiny_run
from refusals import refusal_of
from several import said

from sphere_jax import preflight
from sphere_jax.common import versions
from sphere_jax.runs import host_checks
from sphere_jax.runs.host_checks import Expected, check_hosts

FLAGS = [*tiny_run.FLAGS, "--from_run=ignored"]
HOST = socket.gethostname()


def test_one_host_in_words(tmp_path, capsys):
    expected = ["--hosts=1", "--devices_per_host=1", "--platform=cpu"]
    preflight.main([*expected, *FLAGS, f"--workdir={tmp_path / 'run'}"])
    said = capsys.readouterr().out
    assert "preflight: 1 host, 1 process, 1 x cpu;" in said
    assert "data: 1,442 training examples" in said
    assert f"{tmp_path / 'run'}: every process can write there, " in said
    assert said.endswith("preflight: all is well\n")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_file_to_write_is_no_folder(tmp_path, there):
    """As that of `prepare statistics` and `evaluate`, which would refuse a folder of its name."""
    out = tmp_path / "new" / "scores.json"
    if there:
        out.parent.mkdir()
        out.write_text("{}")
    preflight.main([*FLAGS, f"--out={out}"])
    assert list(out.parent.iterdir()) == [out] * there


def test_all_that_is_wrong_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    expected = ["--hosts=2", "--devices_per_host=8", "--platform=gpu"]
    given = [*expected, *FLAGS, "--config.mesh.fsdp=3", f"--out={tmp_path / 'file' / 'x'}"]
    words = refusal_of(preflight.main, given)
    assert "5 checks failed, the first: 1 hosts have answered, 2 are expected" in words
    said = capsys.readouterr().out
    assert f"WRONG: {HOST}: JAX sees CPU devices alone, not GPU; install jax[cuda12]" in said
    assert f"WRONG: {HOST}: its processes use 1 devices, not 8" in said
    assert f"WRONG: {HOST}: config.mesh asks for 1 x 3 devices but there are 1" in said
    assert f"WRONG: {HOST}: Cannot write to {tmp_path / 'file' / 'x'}" in said


def test_two_plugins_for_cuda_are_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    given = [*FLAGS, f"--workdir={tmp_path / 'run'}"]
    for version in (12, 13):
        name = f"jax_cuda{version}_plugin"
        folder = tmp_path / f"{name}-0.10.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.10.2\n")
        if version == 12:
            versions.check_cuda_plugins()
    words = refusal_of(preflight.main, given)
    assert words.startswith("jax-cuda12-plugin and jax-cuda13-plugin are installed side by side")
    assert "pip uninstall jax-cuda13-plugin jax-cuda13-pjrt, to keep jax-cuda12." in words


@pytest.fixture
def others(monkeypatch):
    """`others(change, ...)`: two more processes on hosts b and c, whose reports are changed."""

    def pretend(*changes):
        def gathered(text):
            reports = [json.loads(text)]
            for host, change in zip("bc", changes, strict=False):
                reports.append(json.loads(text) | {"host": host} | change(json.loads(text)))
            return [json.dumps(report) for report in reports]

        monkeypatch.setattr(host_checks, "gathered_texts", gathered)

    return pretend


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: {"versions": r["versions"] | {"jax": "0.9"}},
            f"c: has jax 0.9, other hosts {jax.__version__}; install the same everywhere",
        ),
        (
            lambda r: {"data": r["data"] | {"fingerprint": "x"}},
            f"c: reads other data than {HOST}; give every host the same",
        ),
        (lambda r: {"data": r["data"] | {"config": "x"}}, "c: reads another config than"),
        (lambda r: {"data": {"wrong": "There is no file x."}}, "c: There is no file x."),
        (lambda r: {"versions": {"wrong": "No package flax"}}, "c: No package flax"),
        (lambda r: {"kind": "TPU v3"}, "devices of several kinds: TPU v3, cpu"),
        (lambda r: {"devices": 3}, f"use different numbers of devices: {HOST} 1, b 1, c 3"),
    ],
)
def test_hosts_that_differ(others, change, words):
    others(lambda r: {}, change)
    config, *overrides = tiny_run.FLAGS
    said = refusal_of(check_hosts, Expected(), config.removeprefix("--config="), overrides, None)
    assert said.startswith("1 check failed, the first: ") and words in said


def test_a_folder_that_the_hosts_do_not_share(tmp_path, monkeypatch):
    """What the other process wrote is not there."""
    monkeypatch.setattr(host_checks, "SEEN", 0.3)
    gathered = {False: lambda text: [text, "elsewhere-7"]}
    monkeypatch.setattr(
        host_checks,
        "gathered_texts",
        lambda text: gathered.get("does not" in text, lambda t: [t, t])(text),
    )
    words = host_checks._written(tmp_path)
    assert "what elsewhere-7 wrote there; name a folder that all hosts share" in words[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_check_each_other(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    started = [
        tiny_run.launch(
            "preflight", "--hosts=1", "--devices_per_host=4", *flags, f"--workdir={tmp_path / 'x'}",
            devices=2, SPHERE_JAX_COORDINATOR=address, SPHERE_JAX_PROCESSES="2",
            SPHERE_JAX_PROCESS=str(number), TF_CPP_MIN_LOG_LEVEL="3",
        )
        for number, flags in enumerate((FLAGS, [*FLAGS, "--config.flow.steps=13"]))
    ]  # fmt: skip
    (out, err), (silent, same) = (tiny_run.finish(process, 2) for process in started)
    assert "1 host, 2 processes, 4 x cpu" in out and "every process can write there" in out
    assert "reads another config than" in err and said(err) == said(same)
    assert "preflight" not in silent
