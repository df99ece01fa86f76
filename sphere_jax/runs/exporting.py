"""What a finished run trained, as files that other runs and other programs take."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from sphere_jax.common.errors import UserError
from sphere_jax.data.pipeline import to_host
from sphere_jax.nn.functional import Params, num_parameters
from sphere_jax.runs.loading import load_run
from sphere_jax.runs.network_files import load_tokenizer, that_has
from sphere_jax.runs.provenance import latents_of, provenance, tokenizer_provenance
from sphere_jax.runs.run import Run
from sphere_jax.runs.system import build_tokenizer
from sphere_jax.weights.stored import WeightsFile, as_metadata, write_safetensors, write_weights
from sphere_jax.weights.tensors import export


def export_run(workdir: Path, part: str, out: Path) -> str:
    """Writes a part of a finished run and returns a sentence about it.

    `part` is one of `PARTS`, the name of a stage for all that it trained, or "" for the first that
    the run has.

    Raises:
      UserError: the run is not finished or has no such part; the file cannot be written.
    """
    run = load_run(workdir)
    parts = [name for name, has in HAS.items() if has(run)]
    having = [*parts, *(stage for stage in run.config.stages if stage not in parts)]
    if part and part not in having:
        raise UserError(f"--export={part}: {workdir} has {', '.join(having)}.")
    part = part or having[0]
    return PARTS[part](run, out) if part in parts else _stage(run, part, out)


def _network(run: Run, out: Path) -> str:
    """In PyTorch's layout if its kind is published, else by our names."""
    method, name = run.generator, run.config.generator
    params = jax.tree.map(to_host, run.artifacts[method.network_parameters])
    about, predicts = provenance(run, name), run.config.model.parameterization
    layouts = method.network_file(str(out)).layouts(method.network)
    if not layouts:
        found = write_weights(out, params, f"stage {name}", str(run.workdir), about)
        return f"{out}: the network of stage '{name}', by our names, fingerprint {found}"
    tensors = export(params, layouts[0])
    metadata = {"format": "pt", "parameterization": predicts} | as_metadata(about)
    write_safetensors(out, tensors, metadata)
    return (
        f"{out}: {len(tensors)} tensors in the layout of {layouts[0].name}, parameterization "
        f"{predicts} (models/parameterization.py)"
    )


def _tokenizer(run: Run, out: Path) -> str:
    """As its converted file: by our names, with the decoder that the run finetuned, if it did."""
    file = _tokenizer_file(run, str(out))
    params = that_has(_parts(run, tuple(file.network.shapes)), file.network.shapes)
    name = file.name or run.config.tokenizer.name
    return _write(run, out, params, name, tokenizer_provenance(run.config), "tokenizer")


def _released(run: Run, out: Path) -> str:
    """The tokenizer in its authors' layout."""
    file = _tokenizer_file(run, str(out))
    params = that_has(_parts(run, tuple(file.network.shapes)), file.network.shapes)
    layout = file.layouts(file.network)[0]
    tensors = export(params, layout)
    about = {"format": "pt"} | as_metadata(tokenizer_provenance(run.config))
    write_safetensors(out, tensors, about)
    return f"{out}: {len(tensors)} tensors of the tokenizer in the layout of {layout.name}"


def _tokenizer_file(run: Run, path: str) -> WeightsFile | None:
    """That of all its parts, as a run whose `config.tokenizer.pretrained` is `path` takes it; None
    if it takes several files."""
    config = run.config
    if not any(field.name == "pretrained" for field in dataclasses.fields(config.tokenizer)):
        return None
    options = dataclasses.replace(config.tokenizer, pretrained=path)
    return build_tokenizer(config.data, options).files(options).get("")


def _decoder(run: Run, out: Path) -> str:
    about = tokenizer_provenance(run.config) | latents_of(run)
    about |= {"projection": run.config.space.projection}
    params = {"decoder": _parts(run, ("decoder",))["decoder"]}
    return _write(run, out, params, f"{run.config.tokenizer.name} decoder", about, "decoder")


def _stage(run: Run, name: str, out: Path) -> str:
    """All that a stage trained, to start from."""
    params = _parts(run, run.methods[name].trains)
    return _write(run, out, params, f"stage {name}", provenance(run, name), "weights of")


def _write(run: Run, out: Path, params: Params, network: str, about: dict, what: str) -> str:
    found = write_weights(out, params, network, str(run.workdir), about)
    count = num_parameters(params)
    return f"{out}: the {what} '{network}', {count:,} parameters by our names, fingerprint {found}"


def _parts(run: Run, parts: tuple[str, ...]) -> Params:
    found = {part: run.artifacts[part] for part in parts if part in run.artifacts}
    if set(parts) > found.keys():  # of a run on cached latents
        found = load_tokenizer(run.tokenizer, run.config.tokenizer) | found
    return {part: jax.tree.map(_on_host, found[part]) for part in parts}


def _on_host(leaf) -> np.ndarray:
    return to_host(leaf) if isinstance(leaf, jax.Array) else np.asarray(leaf)


PARTS: dict[str, Callable[[Run, Path], str]] = {
    "network": _network,
    "tokenizer": _tokenizer,
    "decoder": _decoder,
    "released": _released,
}
HAS: dict[str, Callable[[Run], bool]] = {
    "network": lambda run: bool(run.generator and run.generator.network_parameters),
    "tokenizer": lambda run: _tokenizer_file(run, "F.safetensors") is not None,
    "decoder": lambda run: "decoder" in run.tokenizer.parts,
    "released": lambda run: run.config.tokenizer_class.released_layout,
}
