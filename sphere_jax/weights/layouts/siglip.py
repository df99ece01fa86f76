"""Weights of the image tower of SigLIP 2; those of the text tower beside it are not used."""

from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts.clip import TRANSFORMERS as CLIP
from sphere_jax.weights.layouts.dino import META, batched, qkv_bias, trunk
from sphere_jax.weights.tensors import Layout, Source, as_is, linear_kernel, torch_layer, torch_norm

TIMM = META._replace(who="timm")
TRANSFORMERS = CLIP._replace(who="transformers (SiglipModel)")
IGNORED = r"text_model\..*|logit_scale|logit_bias|.*\.position_ids"


def layouts(network: Network) -> list[Layout]:
    """timm's and transformers'; `network` is of the module `SigLIP`."""
    timm = trunk(TIMM, network.module) | qkv_bias(TIMM, network.module)
    timm["positions"] = Source("pos_embed", batched)
    timm |= _pool("attn_pool", "latent", "proj", "norm")
    for leaf, name, turn in (("kernel", "weight", linear_kernel), ("bias", "bias", as_is)):
        names = (f"attn_pool.q.{name}", f"attn_pool.kv.{name}")
        timm[f"pool/qkv/{leaf}"] = Source(names, turn)

    theirs = trunk(TRANSFORMERS, network.module) | qkv_bias(TRANSFORMERS, network.module)
    theirs["positions"] = Source("vision_model.embeddings.position_embedding.weight")
    head = "vision_model.head"
    theirs |= _pool(head, "probe", "attention.out_proj", "layernorm")
    theirs["pool/qkv/kernel"] = Source(f"{head}.attention.in_proj_weight", linear_kernel)
    theirs["pool/qkv/bias"] = Source(f"{head}.attention.in_proj_bias")
    return [Layout(TIMM.who, timm), Layout(TRANSFORMERS.who, theirs, ignored=IGNORED)]


def _pool(theirs: str, query: str, projection: str, norm: str) -> dict[str, Source]:
    """The leaves of `AttentionPool` but qkv."""
    return {
        "pool/query": Source(f"{theirs}.{query}", batched),
        **torch_layer("pool/projection", f"{theirs}.{projection}", linear_kernel),
        **torch_norm("pool/norm", f"{theirs}.{norm}"),
        **torch_layer("pool/mlp/expand", f"{theirs}.mlp.fc1", linear_kernel),
        **torch_layer("pool/mlp/contract", f"{theirs}.mlp.fc2", linear_kernel),
    }
