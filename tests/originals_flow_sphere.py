"""flow-sphere's networks in PyTorch, after its public code, with the parameters of ours.

No weights are published; so that nothing is renamed, these are functions of our parameter trees.
Patches are (channel, row, column) there, as `unfold` has them.
"""

import torch
from torch.nn import functional as F


def tensors(params):
    """A nested dict of arrays as float32 tensors."""
    if isinstance(params, dict):
        return {key: tensors(value) for key, value in params.items()}
    return torch.tensor(params, dtype=torch.float32)


def layers(stacked):
    """The trees of the layers of a stack."""
    if isinstance(stacked, dict):
        parts = {key: layers(value) for key, value in stacked.items()}
        return [dict(zip(parts, layer, strict=True)) for layer in zip(*parts.values(), strict=True)]
    return list(stacked)


def linear(p, x):
    return F.linear(x, p["kernel"].T, p.get("bias"))


def layer_norm(p, x, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], p.get("scale"), p.get("bias"), eps)


def rms_norm(p, x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * p["scale"]


def rotated(x):
    """(B, heads, N, head_dim): pairs as complex numbers, turned by n 10000^(-2k / head_dim)."""
    head_dim, count = x.shape[-1], x.shape[2]
    theta = 10000.0 ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(count).float(), theta)
    turn = torch.polar(torch.ones_like(angles), angles)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(3)


def attention(p, x, heads):
    q, k, v = (
        linear(p[name], x).unflatten(-1, (heads, -1)).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    q, k = rotated(rms_norm(p["q_norm"], q)), rotated(rms_norm(p["k_norm"], k))
    return linear(p["output"], F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def feed_forward(p, x, activation):
    return linear(p["contract"], activation(linear(p["expand"], x)))


def transformer(p, x, heads):
    for layer in layers(p["layers"]):
        x = x + attention(layer["attention"], layer_norm(layer["attention_norm"], x), heads)
        x = x + feed_forward(layer["mlp"], rms_norm(layer["mlp_norm"], x), F.silu)
    return x


def mixer(p, x):
    for layer in layers(p["mixers"]["layers"]):
        along = layer_norm(layer["token_norm"], x).transpose(1, 2)
        x = x + feed_forward(layer["tokens"], along, F.gelu).transpose(1, 2)
        x = x + feed_forward(layer["channels"], layer_norm(layer["channel_norm"], x), F.gelu)
    return rms_norm(p["mixer_norm"], x)


def sincos(count, width):
    i = torch.arange(width // 2).float()
    angles = torch.arange(count).float()[:, None] / 10000.0 ** (2 * i[None] / width)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def channels_first(kernel, patch, axis):
    """Pixels of a patch along `axis` of a kernel, from (row, column, channel) to `unfold`'s."""
    kernel = kernel.movedim(axis, 0).unflatten(0, (patch, patch, -1))
    return kernel.permute(2, 0, 1, *range(3, kernel.ndim)).flatten(0, 2).movedim(0, axis)


def tokenize(kernel, images, patch):
    patches = F.unfold(images, patch, stride=patch).transpose(1, 2)
    return patches @ channels_first(kernel, patch, 0)


def detokenize(p, tokens, patch, size):
    kernel = channels_first(p["linear"]["kernel"], patch, 1)
    patches = layer_norm(p["norm"], tokens) @ kernel
    images = F.fold(patches.transpose(1, 2), (size, size), patch, stride=patch)
    smooth = p["smooth"]
    return F.conv2d(images, smooth["kernel"].permute(3, 2, 0, 1), smooth["bias"], padding=1)


def encode(p, images, patch, heads):
    """Images (B, C, H, W) to latents (B, N, d), batch-normalised where there is a norm."""
    x = linear(p["tokens"], tokenize(p["pixels"]["kernel"], images, patch))
    x = x + 2 * sincos(*x.shape[1:])
    z = linear(p["bottleneck"], mixer(p["body"], transformer(p["body"]["blocks"], x, heads)))
    if "norm" not in p:
        return z
    scale, bias = (p["norm"][name].flatten() for name in ("scale", "bias"))
    return F.batch_norm(z.flatten(1), None, None, scale, bias, training=True).view_as(z)


def decode(p, latents, patch, heads, size):
    """Latents (B, N, d) to images (B, C, H, W) and tokens."""
    x = mixer(p["body"], linear(p["input"], latents))
    tokens = transformer(p["body"]["blocks"], x, heads)
    return detokenize(p["pixels"], tokens, patch, size), tokens


def modulate(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


def refine(p, images, t, latents, tokens, patch, heads):
    """Clean images (B, C, H, W) from noisy ones at t, 0 to 1; two context projections, where the
    original's first version has one for both."""
    c = feed_forward(p["time_mlp"], p["time_table"][(t * 100).long()], F.silu)
    x = tokenize(p["tokens"]["kernel"], images, patch) + p["positions"]
    count = x.shape[1]
    h = torch.cat([linear(p["latents"], latents), linear(p["context"], tokens), x], dim=1)
    for layer in layers(p["blocks"]["layers"]):
        six = linear(layer["modulation"], F.silu(c)).chunk(6, dim=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = six
        y = modulate(layer_norm({}, h, 1e-6), shift1, scale1)
        h = h + gate1[:, None] * attention(layer["attention"], y, heads)
        y = modulate(layer_norm({}, h, 1e-6), shift2, scale2)
        h = h + gate2[:, None] * feed_forward(layer["mlp"], y, F.silu)
    shift, scale = linear(p["head_modulation"], F.silu(c)).chunk(2, dim=-1)
    h = modulate(layer_norm({}, h[:, -count:], 1e-6), shift, scale)
    return detokenize(p["pixels"], h, patch, images.shape[-1])
