"""AutoencoderKL's published layouts: names, round trips, what is ignored."""

import jax
import numpy as np
import pytest
from flax import nnx

from sphere_jax.models.kl_vae import AutoencoderKL
from sphere_jax.nn.functional import Network
from sphere_jax.weights.layouts.kl_vae import layouts
from sphere_jax.weights.tensors import convert, export

SMALL = dict(latent_channels=3, widths=(32, 64), blocks=1, attention_levels=(1,), statistics=True)


@pytest.fixture(scope="module")
def small():
    return Network(lambda rngs: AutoencoderKL(**SMALL, rngs=rngs))


@pytest.fixture(scope="module")
def params(small):
    rng = np.random.default_rng(0)
    shapes = nnx.to_pure_dict(nnx.state(small.module))
    return jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), shapes)


def named(network, params, name):
    (layout,) = [layout for layout in layouts(network) if layout.name == name]
    return export(params, layout)


def stems(tensors):
    """Names without "weight" and "bias"."""
    return {name.removesuffix(".weight").removesuffix(".bias") for name in tensors}


def layers(prefix, *names):
    return {f"{prefix}.{name}" for name in names}


CONVS = ("norm1", "conv1", "norm2", "conv2")


def test_names_of_flux2(small, params):
    tensors = named(small, params, "FLUX.2")
    attention = ("norm", "q", "k", "v", "proj_out")
    assert stems(tensors) == {
        *("bn.running_mean", "bn.running_var"),
        *layers("encoder", "conv_in", "norm_out", "conv_out", "quant_conv"),
        *layers("encoder.mid.block_1", *CONVS),
        *layers("encoder.mid.attn_1", *attention),
        *layers("encoder.mid.block_2", *CONVS),
        *layers("encoder.down.0.block.0", *CONVS),
        *layers("encoder.down.0.downsample", "conv"),
        *layers("encoder.down.1.block.0", *CONVS, "nin_shortcut"),
        *layers("encoder.down.1.attn.0", *attention),
        *layers("decoder", "conv_in", "norm_out", "conv_out", "post_quant_conv"),
        *layers("decoder.mid.block_1", *CONVS),
        *layers("decoder.mid.attn_1", *attention),
        *layers("decoder.mid.block_2", *CONVS),
        *layers("decoder.up.1.block.0", *CONVS),
        *layers("decoder.up.1.block.1", *CONVS),
        *layers("decoder.up.1.attn.0", *attention),
        *layers("decoder.up.1.attn.1", *attention),
        *layers("decoder.up.1.upsample", "conv"),
        *layers("decoder.up.0.block.0", *CONVS, "nin_shortcut"),
        *layers("decoder.up.0.block.1", *CONVS),
    }
    assert tensors["encoder.mid.attn_1.q.weight"].shape == (64, 64, 1, 1)
    assert tensors["encoder.quant_conv.weight"].shape == (6, 6, 1, 1)
    assert tensors["encoder.down.0.downsample.conv.weight"].shape == (32, 32, 3, 3)
    assert tensors["decoder.up.0.block.0.nin_shortcut.weight"].shape == (32, 64, 1, 1)


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("diffusers", ("group_norm", "to_q", "to_k", "to_v", "to_out.0")),
        ("older diffusers", ("group_norm", "query", "key", "value", "proj_attn")),
    ],
)
def test_names_of_diffusers(small, params, name, attention):
    tensors = named(small, params, name)
    assert stems(tensors) == {
        *("bn.running_mean", "bn.running_var", "quant_conv", "post_quant_conv"),
        *layers("encoder", "conv_in", "conv_norm_out", "conv_out"),
        *layers("encoder.mid_block.resnets.0", *CONVS),
        *layers("encoder.mid_block.attentions.0", *attention),
        *layers("encoder.mid_block.resnets.1", *CONVS),
        *layers("encoder.down_blocks.0.resnets.0", *CONVS),
        *layers("encoder.down_blocks.0.downsamplers.0", "conv"),
        *layers("encoder.down_blocks.1.resnets.0", *CONVS, "conv_shortcut"),
        *layers("encoder.down_blocks.1.attentions.0", *attention),
        *layers("decoder", "conv_in", "conv_norm_out", "conv_out"),
        *layers("decoder.mid_block.resnets.0", *CONVS),
        *layers("decoder.mid_block.attentions.0", *attention),
        *layers("decoder.mid_block.resnets.1", *CONVS),
        *layers("decoder.up_blocks.0.resnets.0", *CONVS),
        *layers("decoder.up_blocks.0.resnets.1", *CONVS),
        *layers("decoder.up_blocks.0.attentions.0", *attention),
        *layers("decoder.up_blocks.0.attentions.1", *attention),
        *layers("decoder.up_blocks.0.upsamplers.0", "conv"),
        *layers("decoder.up_blocks.1.resnets.0", *CONVS, "conv_shortcut"),
        *layers("decoder.up_blocks.1.resnets.1", *CONVS),
    }
    assert tensors[f"encoder.mid_block.attentions.0.{attention[1]}.weight"].shape == (64, 64)


def test_every_layout_there_and_back(small, params):
    """The three are distinguished by their names; counters of a batch norm are ignored."""
    for layout in layouts(small):
        tensors = export(params, layout) | {"bn.num_batches_tracked": np.array(7)}
        jax.tree.map(np.testing.assert_array_equal, convert(tensors, layouts(small), small), params)


def test_query_key_and_value_in_order(small, params):
    kernel = params["encoder"]["middle"]["attention"]["qkv"]["kernel"]
    tensors = named(small, params, "diffusers")
    for n, name in enumerate(("to_q", "to_k", "to_v")):
        published = tensors[f"encoder.mid_block.attentions.0.{name}.weight"]
        np.testing.assert_array_equal(published, kernel[:, 64 * n : 64 * (n + 1)].T)


def test_checkpoint_of_a_training_run(params):
    """As VA-VAE's: beside the network its losses and what its latents are aligned with."""
    sizes = SMALL | dict(statistics=False)
    small = Network(lambda rngs: AutoencoderKL(**sizes, rngs=rngs))
    params = {half: params[half] for half in ("encoder", "decoder")}
    tensors = named(small, params, "LDM")
    assert {"quant_conv.weight", "post_quant_conv.bias"} <= set(tensors)
    extra = {
        "loss.logvar": np.zeros(()),
        "loss.discriminator.main.0.weight": np.zeros((64, 3, 4, 4)),
        "foundation_model.model.cls_token": np.zeros((1, 1, 8)),
        "linear_proj.weight": np.zeros((8, 3, 1, 1)),
        "model_ema.decay": np.zeros(()),
    }
    jax.tree.map(
        np.testing.assert_array_equal, convert(tensors | extra, layouts(small), small), params
    )
    with pytest.raises(ValueError, match="1 unexpected .encoder.down.9.*by the names of LDM"):
        convert(tensors | {"encoder.down.9.attn.0.q.bias": np.zeros(3)}, layouts(small), small)
    del tensors["decoder.up.1.attn.1.v.bias"]
    with pytest.raises(ValueError, match="1 missing .decoder.up.1.attn.1.v.bias"):
        convert(tensors, layouts(small), small)
