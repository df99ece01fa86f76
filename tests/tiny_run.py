"""The smallest whole run, a tiny tokenizer's weights, and commands in processes of their own."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sphere_jax.common import files
from sphere_jax.common.allocator import settings

ROOT = Path(__file__).parents[1]
FLAGS = [
    f"--config={ROOT / 'configs' / 'mnist_slerp.py'}",
    "--config.data.source=digits",
    "--config.data.image_size=16",
    "--config.tokenizer.patch=8",
    "--config.tokenizer.widths=8,",  # of one level: most of a tiny run is tracing and compiling
    "--config.tokenizer.latent_channels=4",
    "--config.model.width=32",
    "--config.model.depth=2",
    "--config.model.heads=2",
    "--config.model.unroll=False",
    "--config.vae.steps=6",
    "--config.decoder.steps=4",
    "--config.flow.steps=12",
    "--config.vae.batch_size=16",
    "--config.decoder.batch_size=16",
    "--config.flow.batch_size=16",
    "--config.flow.log_every=1",
    "--config.flow.checkpoint_every=3",
    "--config.flow.preview_every=6",
    "--config.sampler.steps=4",
    "--config.evaluation.samples=40",
    "--config.evaluation.classifier_steps=20",
]


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """For a process with so many CPU devices and the strictness of tests/conftest.py."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    cache = Path(tempfile.gettempdir()) / "sphere_jax_test_cache"
    found = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("SPHERE_JAX_CACHE", str(cache)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
        "SPHERE_JAX_WAIT": "300",  # for others, on a busy machine
        **more,
    }
    return found | settings(found)  # so that no command starts twice


def launch(
    command: str | Path, *flags: Any, devices: int = 1, before: Sequence = (), **more: str
) -> subprocess.Popen:
    """`python -m sphere_jax.COMMAND FLAGS`, or a script with flags, its output readable line by
    line. `before`: a script and its arguments, which runs the command instead. Scripts need ROOT
    in PYTHONPATH."""
    module = [command] if isinstance(command, Path) else ["-m", f"sphere_jax.{command}"]
    program = [*before, command] if before else module
    line = [sys.executable, "-u", *map(str, [*program, *flags])]
    return subprocess.Popen(
        line,
        cwd=ROOT,
        env=environment(devices, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0, timeout: float = 400) -> tuple[str, str]:
    """`(stdout, stderr)` of a process that must end with `code`."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def on_devices(count: int, script: Path, *arguments: Any, timeout: float) -> Any:
    """What a script prints as JSON in its last line, in a process with so many devices."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=environment(count, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}"),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def edit_json(file: Path, *without: str, **changes) -> None:
    """Values of a JSON object changed or left out, as by a version that wrote no checksum."""
    content = json.loads(file.read_text()) | changes
    kept = {key: value for key, value in content.items() if key not in (files.SEAL, *without)}
    file.write_text(json.dumps(kept))


def unstarted(workdir: Path, config: str, *flags):
    """A run of `--config=FILE` and more flags, before its first stage: nothing is written."""
    from sphere_jax.config.config_files import load_config
    from sphere_jax.distribution.mesh import make_mesh
    from sphere_jax.runs.run import Run

    loaded = load_config(config.removeprefix("--config="), list(map(str, flags)))
    return Run(loaded, workdir, make_mesh())


def write_tiny_vae(file: Path, rng, kind: str = "taesd") -> None:
    """Weights of a tiny VAE drawn from `rng`, as `sphere_jax.convert` writes them."""
    import jax  # here, because some set what JAX reads at its import

    from sphere_jax.models.tiny_vae import KINDS, TinyVAE
    from sphere_jax.nn.functional import Network
    from sphere_jax.weights.stored import write_weights

    network = Network(lambda rngs: TinyVAE(*KINDS[kind], rngs=rngs))
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda s: 0.05 * rng.standard_normal(s.shape).astype("f4"), shapes)
    write_weights(file, params, kind, "random")


def benchmark(name: str):
    """benchmarks/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
