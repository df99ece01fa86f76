"""One sentence for every way a config can be wrong, and the same config back from its dict."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
from refusals import refusal_of

from sphere_jax.common import plugins
from sphere_jax.config.config_files import load_config
from sphere_jax.config.options import Config, DataOptions, EvaluationOptions
from sphere_jax.config.reading import read_config, to_dict
from sphere_jax.distribution.mesh import make_mesh
from sphere_jax.runs.plan import print_plan
from sphere_jax.runs.records import options_of

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
SMALL = {
    "stages": ("vae", "flow"),
    "data": {"source": "digits", "image_size": 16},
    "tokenizer": {"patch": 2, "widths": (8, 16), "latent_channels": 4},
    "model": {"width": 32, "depth": 2, "heads": 2},
    "vae": {"method": "vae", "steps": 4},
    "flow": {"method": "flow", "steps": 4, "optimizer": {"learning_rate": 1e-3}},
}
LATENTS = {
    "stages": ("flow",),
    "data": {"source": "latents"},
    "tokenizer": {"name": "precomputed", "latent_shape": (2, 2, 4)},
    "flow": {"method": "flow"},
}


def changed(base=SMALL, **values):
    """`base` with dotted values replaced: changed(flow__steps=3)."""
    raw = copy.deepcopy(base)
    for name, value in values.items():
        *groups, key = name.split("__")
        group = raw
        for part in groups:
            group = group.setdefault(part, {})
        group[key] = value
    return raw


def refusal(raw) -> str:
    return refusal_of(read_config, raw)


@pytest.mark.parametrize(
    ("values", "near"),
    [
        ({"flow__stepz": 3}, "config.flow has no 'stepz'; did you mean 'steps'?"),
        ({"sampler__guidence": 2.0}, "config.sampler has no 'guidence'; did you mean 'guidance'?"),
        ({"flow__optimizer__lerning_rate": 1.0}, "did you mean 'learning_rate'?"),
        ({"sede": 1}, "config has no 'sede'; did you mean 'seed'?"),
        ({"flwo": {"steps": 3}}, "config has no 'flwo'; did you mean 'flow'?"),
        ({"groups": {}}, "config has no 'groups'"),
        ({"vae__radial_weight": 1.0}, "config.vae has no 'radial_weight'"),
        ({"flow__method": "flw"}, "did you mean 'flow'?"),
    ],
)
def test_unknown_keys_get_the_nearest_name(values, near):
    assert near in refusal(changed(**values))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"flow__steps": 3.5}, "config.flow.steps must be int, not 3.5."),
        ({"flow__steps": True}, "config.flow.steps must be int, not True."),
        ({"data__flip": 1}, "config.data.flip must be bool, not 1."),
        ({"data__path": None}, "config.data.path must be str, not None."),
        ({"tokenizer__widths": 8}, "config.tokenizer.widths must be a tuple of int, not 8."),
        ({"tokenizer__widths": (8, 1.5)}, "config.tokenizer.widths[1] must be int"),
        ({"data": 3}, "config.data must be a group of values, not 3."),
        ({"flow": 3}, "config.flow must be a group of values, not 3."),
        ({"data__channels": 1.0}, "config.data.channels=1.0 must be one of 1, 3."),
        ({"data__channels": True}, "config.data.channels=True must be one of 1, 3."),
        ({"space__path": "slrp"}, "must be one of 'linear', 'polar', 'data_projected',"),
        ({"stages": "flow"}, "config.stages must be a tuple of str"),
    ],
)
def test_wrong_types(values, sentence):
    assert sentence in refusal(changed(**values))


def test_an_int_is_a_float():
    config = read_config(changed(sampler__guidance=2))
    assert config.sampler.guidance == 2.0 and type(config.sampler.guidance) is float


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"vae__steps": -1}, "config.vae.steps=-1 must be at least 0."),
        ({"flow__label_dropout": 1.5}, "config.flow.label_dropout=1.5 must be at most 1.0."),
        ({"flow__ema_decay": 1.0}, "config.flow.ema_decay=1.0 must be at most"),
        ({"flow__optimizer__b1": 1.0}, "config.flow.optimizer.b1=1.0 must be at most"),
        ({"flow__optimizer__learning_rate": float("nan")}, "must be a finite number."),
        ({"space__radius": float("inf")}, "config.space.radius=inf must be a finite number."),
        ({"seed": -1}, "config.seed=-1 must be at least 0."),
        ({"seed": 2**32}, "config.seed=4294967296 must be at most 4294967295."),
        ({"tokenizer__widths": ()}, "config.tokenizer.widths"),
        ({"tokenizer__widths": (8, 0)}, "config.tokenizer.widths"),
        ({"checkpoints__keep_last": 0}, "config.checkpoints.keep_last=0 must be at least 1."),
        ({"checkpoints__store": "s3://b/run"}, "mount another store, as S3, as a folder."),
        ({"checkpoints__store": "gs://b"}, "must be gs://BUCKET/FOLDER"),
        ({"checkpoints__store": "/shared"}, "must be gs://BUCKET/FOLDER"),
    ],
)
def test_out_of_range(values, sentence):
    assert sentence in refusal(changed(**values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data__random_crop": (32, 40)}, "config.data.random_crop needs pictures in files"),
        (
            {"data__random_crop": (8, 40), "data__source": "folder"},
            "must be two sides, the least and the greatest, from image_size=",
        ),
        (
            {"data__random_crop": (40,), "data__source": "folder"},
            "must be two sides, the least and the greatest, from image_size=",
        ),
        ({"model__heads": 3}, "config.model.width=32 must be a multiple of heads=3"),
        ({"model__qk_norm": True}, "needs config.model.name='lightning_ddt' or 'lightning_dit'"),
        (
            {"model__time_embedding": "fourier"},
            "needs config.model.name='lightning_dit', not 'sit'",
        ),
        ({"data__image_size": 18}, "must be a multiple of 4"),
        ({"flow__accumulate": 3}, "must be a multiple of accumulate=3"),
        ({"flow__time_low": 0.5, "flow__time_high": 0.5}, "time_low must be below time_high"),
        ({"flow__time_density": "logit_normal", "flow__time_low": 0.1}, "truncated_logit_normal"),
        ({"flow__loss_weight": "jacobi", "space__path": "nlerp"}, "config.space.path='slerp'"),
        ({"flow__optimizer__constant_steps": 2}, "need a schedule that falls"),
        ({"flow__optimizer__hold": 2}, "need a schedule that falls"),
        ({"flow__ema_profiles": (0.1, 0.1), "flow__ema_snapshot_every": 9}, "different widths"),
        ({"flow__ema_profiles": (0.29,), "flow__ema_snapshot_every": 9}, "between 0 and 0.288"),
        ({"flow__ema_profiles": (0.1,)}, "config.flow.ema_profiles and ema_snapshot_every go"),
        ({"flow__ema_snapshot_every": 9}, "config.flow.ema_profiles and ema_snapshot_every go"),
        ({"sampler__guidance_low": 0.9, "sampler__guidance_high": 0.1}, "must not exceed"),
        (
            {"model__parameterization": "unit_sphere", "space__path": "linear"},
            "config.model.parameterization='unit_sphere' means velocities of tokens",
        ),
        (
            {"model__parameterization": "unit_sphere", "space__radius": 3.0},
            "units of their radius sqrt(d)",
        ),
        (
            {"model__size": "B"},
            "size='B' fixes width, depth and heads: set size to '' to choose them, or leave "
            "config.model.width and depth and heads out.",
        ),
        (
            {"vae__ema_profiles": (0.1,), "vae__ema_snapshot_every": 2},
            "leave it out of a 'vae' stage",
        ),
        ({"flow__time_std": 2.0}, "time_std need config.flow.time_density='logit_normal'"),
        (
            {"flow__optimizer": {"final_fraction": 0.1}},
            "hold and final_fraction need a schedule that falls",
        ),
        ({"sampler__auto_guidance": "weak"}, "auto_guidance=weak does nothing at guidance 1"),
        (
            {"sampler__guidance": 2.0, "flow__label_dropout": 0.0},
            "which config.flow.label_dropout=0 does not train",
        ),
        (
            {"flow__optimizer": {"schedule": "linear", "hold": 1, "fall_steps": 2}},
            "fall_steps and hold both say where the fall ends",
        ),
        ({"evaluation__lpips": "w"}, "config.evaluation.lpips needs a 'decoder' stage"),
        ({"evaluation__samples": 3}, "config.evaluation.samples=3 must be more than neighbours=3"),
        ({"sampler__t_end": 1.0}, "config.sampler.t_end=1.0 must be at most 0.999"),
        ({"sampler__t_end": -0.1}, "config.sampler.t_end=-0.1 must be at least 0.0"),
        ({"data__source": "latents"}, "go together"),
        ({"stages": ()}, "config.stages is empty"),
        ({"stages": ("vae", "other")}, "there is no group of that name"),
        ({"stages": ("vae", "vae")}, "each once; not 'vae'"),
        ({"stages": ("data",)}, "not 'data'"),
        ({"stages": ("flow",)}, "must begin with a 'vae' stage"),
        ({"stages": ("flow", "vae")}, "must begin with a 'vae' stage"),
    ],
)
def test_values_that_exclude_each_other(values, words):
    assert words in refusal(changed(**values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tokenizer__latent_shape": (4, 4)}, "must be (h, w, d)"),
        ({"tokenizer__latent_shape": (4, 0, 4)}, "must be (h, w, d)"),
        ({"data__flip": True}, "config.data.flip=True needs images"),
        ({"stages": ("vae", "flow"), "vae": {"method": "vae"}}, "need images"),
    ],
)
def test_options_that_latents_exclude(values, words):
    read_config(LATENTS)
    assert words in refusal(changed(LATENTS, **values))


def test_a_stage_that_is_left_out_may_stay_in_the_file():
    config = read_config(changed(stages=("vae",), decoder={"steps": 3}))
    assert list(config.groups) == ["vae"]


def test_a_stage_of_any_name_names_its_method():
    raw = changed(stages=("vae", "long"), long={"method": "flow", "steps": 7})
    assert read_config(raw).stage("long").radial_weight == 0.0


@pytest.mark.parametrize("raw", [SMALL, LATENTS], ids=["images", "latents"])
def test_to_dict_is_the_inverse_of_read_config(raw):
    config = read_config(raw)
    assert read_config(to_dict(config)) == config
    assert read_config(json.loads(json.dumps(to_dict(config)))) == config


# Of the generator, with its fixed tables: docs/systems/shared.md#parameter-counts.
COUNTS = {
    "imagenet_slerp": "130,672,256",
    "imagenet_linear": "130,672,256",
    "imagenet_slerp_vavae": "130,524,704",
    "imagenet_slerp_repae": "130,573,888",
    "imagenet_sit": "675,129,632",
    "imagenet_lightning_dit": "675,256,736",
    "imagenet_slerp_sd": "130,512,416",  # with twice the channels at the head
    "imagenet_hae_rfm": "677,838,464",
    "imagenet_rjf": "131,884,288",
    "imagenet_rjf_linear": "131,884,288",
}
QUICK = ("imagenet_slerp", "imagenet_rjf", "mnist_slerp", "mnist_sphere_encoder")


MATCHED = {  # what each changes of imagenet_slerp.py, or of imagenet_rjf.py
    "imagenet_linear": {"space.path", "stages"},
    "imagenet_decoder": {"stages"},
    "imagenet_slerp_vavae": {"tokenizer.kind", "tokenizer.latents", "model.patch"},
    "imagenet_slerp_repae": {"tokenizer.kind"},
    "imagenet_slerp_sd": {
        "tokenizer.kind", "tokenizer.latents", "model.learn_sigma", "sampler.guidance_channels",
    },
    "imagenet_rjf_linear": {
        "space.path", "model.parameterization", "flow.loss_weight", "flow.tangent_projection",
        "flow.optimizer.clip_norm", "flow.optimizer.eps", "sampler.decode_radius",
    },
}  # fmt: skip


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_file_reads(file):
    config = load_config(str(file))
    assert read_config(to_dict(config)) == config


def _slow_but_quick(file):
    marks = [] if file.stem in QUICK else [pytest.mark.slow]
    return pytest.param(file, marks=marks, id=file.stem)


@pytest.mark.parametrize("file", [_slow_but_quick(file) for file in CONFIGS])
def test_every_config_file_builds(file, capsys):
    config = load_config(str(file))
    print_plan(config, make_mesh())
    printed = capsys.readouterr().out
    for name in config.stages:
        assert f"\n{name}  (" in printed
    assert "parameters" in printed and ("NFE" in printed) == (config.generator is not None)
    of_vavae = file.stem in ("imagenet_slerp_vavae", "imagenet_lightning_dit")
    assert ("not normalised by channel" in printed) == of_vavae
    if file.stem in COUNTS:
        assert f" {COUNTS[file.stem]} with fixed position tables" in printed


@pytest.mark.parametrize(("name", "differ"), MATCHED.items())
def test_matched_configs_differ_in_what_they_compare(name, differ):
    folder = Path(__file__).parents[1] / "configs"
    base = "imagenet_rjf" if name.startswith("imagenet_rjf") else "imagenet_slerp"
    ours, theirs = (options_of(load_config(str(folder / f"{stem}.py"))) for stem in (name, base))
    different = {key for key in ours if ours[key].value != theirs[key].value}
    assert {key.removeprefix("config.") for key in different} == differ


ENCODER = {
    "stages": ("sphere_encoder",),
    "data": {"source": "digits", "image_size": 16},
    "tokenizer": {"name": "sphere_encoder", "width": 32, "heads": 2, "patch": 4},
    "sphere_encoder": {"batch_size": 32},
    "sampler": {"guidance": 1.4, "guidance_at": "decoder"},
}
DENOISER = {
    "stages": ("vae", "sphere_latent"),
    "data": SMALL["data"],
    "tokenizer": SMALL["tokenizer"],
    "space": {"sphere": "global"},
    "model": {"name": "denoiser", "width": 32, "heads": 2},
    "vae": {},
    "sphere_latent": {},
}


def test_a_group_has_the_options_of_its_kind():
    assert read_config(ENCODER).sampler.guidance_at == "decoder"
    assert read_config(DENOISER).sampler.schedule == "decreasing"
    assert read_config(SMALL).sampler.solver == "euler"
    assert read_config(ENCODER | {"stages": ("flow",), "flow": {}, "data": LATENTS["data"],
                                  "tokenizer": LATENTS["tokenizer"], "sampler": {}}
                       ).sampler.solver == "euler"  # fmt: skip
    assert read_config(to_dict(read_config(ENCODER))) == read_config(ENCODER)
    assert read_config(to_dict(read_config(DENOISER))) == read_config(DENOISER)


@pytest.mark.parametrize(
    ("base", "values", "words"),
    [
        (ENCODER, {"sampler__solver": "heun"}, "config.sampler has no 'solver'"),
        (SMALL, {"sampler__guidance_at": "combo"}, "config.sampler has no 'guidance_at'"),
        (ENCODER, {"tokenizer__blocks": 2}, "config.tokenizer.blocks needs config.tokenizer.name"),
        (ENCODER, {"tokenizer__name": "vqgan"}, "'vqgan' is not known; known: conv_vae"),
        (ENCODER, {"sphere_encoder__batch_size": 40}, "must be a multiple of strata=16"),
        (ENCODER, {"data__image_size": 18}, "must be a multiple of config.tokenizer.patch=4"),
        (ENCODER, {"tokenizer__size": "base"}, "leave config.tokenizer.width and heads out"),
        (ENCODER, {"tokenizer__heads": 3}, "config.tokenizer.width=32 must be a multiple of"),
        (ENCODER, {"tokenizer__conditional": False}, "config.sampler.guidance needs classes"),
        (ENCODER, {"sphere_encoder__label_dropout": 0.0}, "which config.sphere_encoder.label_drop"),
        (ENCODER, {"sphere_encoder__max_angle": 90.0}, "must be at most 89.0"),
        (ENCODER, {"tokenizer": SMALL["tokenizer"]}, "must begin with a 'vae' stage"),
        (ENCODER, {"evaluation__at_steps": (0,)}, "must hold numbers from 1 on"),
        (DENOISER, {"space__sphere": "token"}, "lives on the global sphere"),
        (DENOISER, {"space__path": "linear"}, "lives on the global sphere"),
        (
            DENOISER,
            {"model__name": "sit"},
            "without a time input: config.model.name='denoiser', not 'sit'",
        ),
        (
            SMALL,
            {"model__name": "denoiser"},
            "with a time input: config.model.name='lightning_ddt' or",
        ),
        (
            SMALL,
            {"sampler__solver": "euler_maruyama"},
            "solves linear paths from Gaussian noise alone, the Euclidean baseline: set",
        ),
        (
            SMALL,
            {"sampler__solver": "dopri5", "space__path": "shell_linear"},
            "config.sampler.solver='dopri5' solves linear paths from Gaussian noise alone",
        ),
        (
            SMALL,
            {"sampler__solver": "euler_maruyama", "space__path": "linear", "sampler__t_end": 0.1},
            "config.sampler.t_end must be 0",
        ),
        (
            SMALL,
            {"sampler__solver": "dopri5", "space__path": "linear", "evaluation__at_steps": (4,)},
            "config.evaluation.at_steps has no meaning for solver='dopri5'",
        ),
        (SMALL, {"model__size": "huge"}, "must be one of"),
        (
            ENCODER,
            {"stages": ("vae", "sphere_encoder"), "vae": {}},
            "must begin with a 'sphere_encoder' stage",
        ),
    ],
)
def test_conflicting_options_of_few_step_systems(base, values, words):
    read_config(base)
    assert words in refusal(changed(base, **values))


def test_paths_in_a_config_are_expanded_once(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("WEIGHTS", "/weights")
    raw = changed(
        data__path="~/flowers", flow__pretrained="$WEIGHTS/a.safetensors",
        sampler={"auto_guidance": Path("${WEIGHTS}/run"), "guidance": 2.0},
    )  # fmt: skip
    config = read_config(raw)
    assert config.data.path == "/home/ada/flowers"
    assert config.stage("flow").pretrained == "/weights/a.safetensors"
    assert config.sampler.auto_guidance == "/weights/run"
    monkeypatch.setenv("WEIGHTS", "/elsewhere")
    assert read_config(to_dict(config), stored=True) == config
    assert read_config(changed(data__path="~/x"), stored=True).data.path == "~/x"
    assert (
        refusal(changed(data__path="$NOT_SET/x"))
        == "config.data.path: '$NOT_SET/x' needs $NOT_SET, which is not set: export it first."
    )


@pytest.mark.parametrize("package", [("methods", "METHOD"), ("tokenizers", "TOKENIZER")])
def test_an_option_of_text_is_a_path_or_names_a_plug_in(package):
    kinds = [plugins.find(*package, name, "test") for name in plugins.known(*package)]
    groups = [Config, DataOptions, EvaluationOptions, *(kind.Options for kind in kinds)]
    groups += [kind.SamplerOptions for kind in kinds if getattr(kind, "SamplerOptions", None)]
    for group in groups:
        for field in dataclasses.fields(group):
            if field.type is str and field.name not in ("name", "method"):
                about = field.metadata
                assert about["path"] or about["plugin"], f"{group.__name__}.{field.name}"
