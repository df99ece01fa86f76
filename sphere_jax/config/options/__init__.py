"""Every option of a run: its type, its default, its range, as frozen dataclasses.

A group that comes in kinds (a tokenizer, a network, a sampler, a stage) has one class a kind, so
that no kind has an option which it does not read. `config.py` turns a config file into these.
"""

from sphere_jax.config.options.data import Data
from sphere_jax.config.options.models import (
    RAW_PATHS,
    Clock,
    DenoiserModel,
    LightningDDTModel,
    LightningDiTModel,
    Model,
    SiTModel,
    Space,
    Transformer,
)
from sphere_jax.config.options.run import (
    SAMPLERS,
    Config,
    Evaluation,
    FlowSampler,
    Mesh,
    Sampler,
    SphereEncoderSampler,
    SphereLatentSampler,
)
from sphere_jax.config.options.stages import (
    STAGES,
    DecoderStage,
    FlowStage,
    Optimizer,
    SphereEncoderStage,
    SphereLatentStage,
    Stage,
    VAEStage,
)
from sphere_jax.config.options.tokenizers import (
    ConvVAETokenizer,
    KLVAETokenizer,
    PrecomputedTokenizer,
    RAETokenizer,
    SphereEncoderTokenizer,
    TinyVAETokenizer,
    Tokenizer,
)

__all__ = [
    "RAW_PATHS",
    "Clock",
    "Config",
    "ConvVAETokenizer",
    "Data",
    "DecoderStage",
    "DenoiserModel",
    "Evaluation",
    "FlowSampler",
    "FlowStage",
    "KLVAETokenizer",
    "LightningDDTModel",
    "LightningDiTModel",
    "Mesh",
    "Model",
    "Optimizer",
    "PrecomputedTokenizer",
    "RAETokenizer",
    "SAMPLERS",
    "STAGES",
    "Sampler",
    "SiTModel",
    "Space",
    "SphereEncoderSampler",
    "SphereEncoderStage",
    "SphereEncoderTokenizer",
    "SphereLatentSampler",
    "SphereLatentStage",
    "Stage",
    "TinyVAETokenizer",
    "Tokenizer",
    "Transformer",
    "VAEStage",
]
