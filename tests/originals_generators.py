"""SiT, DiT, LightningDiT and DiT-DH in PyTorch under their published names, with random weights.

Inputs and outputs are NCHW as in the originals. Every weight is random, since the originals
start with zero gates and a zero head that would hide the rest. `forward` also fills `self.features`
with what `features` of our networks returns, by the same names.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, 1e-6)


def plain_norm(width):
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


class Rope(nn.Module):
    """Rotates pairs of channels as complex numbers; the buffers hold every angle twice."""

    def __init__(self, head_dim, side):
        super().__init__()
        frequencies = 10000 ** (-torch.arange(0, head_dim // 2, 2) / (head_dim // 2))
        angles = (torch.arange(side)[:, None] * frequencies).repeat_interleave(2, -1)
        shape = (side, side, head_dim // 2)
        both = torch.cat([angles[:, None].expand(shape), angles[None].expand(shape)], -1)
        self.register_buffer("freqs_cos", both.cos().flatten(0, 1))
        self.register_buffer("freqs_sin", both.sin().flatten(0, 1))

    def forward(self, x):  # (B, heads, N, head_dim)
        turn = torch.complex(self.freqs_cos[:, ::2], self.freqs_sin[:, ::2])
        turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn
        return torch.view_as_real(turned).flatten(-2)


class Attention(nn.Module):
    def __init__(self, width, heads, qk_norm):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = (
            RMSNorm(width // heads) if qk_norm else nn.Identity() for _ in "qk"
        )

    def forward(self, x, rope):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rope(self.q_norm(q)), rope(self.k_norm(k))
        weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
        return self.proj((weights @ v).transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SwiGLU(nn.Module):
    def __init__(self, width):
        super().__init__()
        hidden = int(2 / 3 * 4 * width)
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x):
        gate, value = self.w12(x).tensor_split(2, -1)
        return self.w3(F.silu(gate) * value)


def modulation(width, parts):
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def of_tokens(c):
    return c if c.ndim == 3 else c.unsqueeze(1)


class Block(nn.Module):
    def __init__(self, width, heads, *, lightning, qk_norm=False):
        super().__init__()
        norm = RMSNorm if lightning else plain_norm
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attn = Attention(width, heads, qk_norm)
        self.mlp = SwiGLU(width) if lightning else Mlp(width)
        self.adaLN_modulation = modulation(width, 6)

    def forward(self, x, c, rope):
        b1, s1, g1, b2, s2, g2 = self.adaLN_modulation(of_tokens(c)).chunk(6, -1)
        x = x + g1 * self.attn(self.norm1(x) * (1 + s1) + b1, rope)
        return x + g2 * self.mlp(self.norm2(x) * (1 + s2) + b2)


class FinalLayer(nn.Module):
    def __init__(self, width, features, *, lightning):
        super().__init__()
        self.norm_final = (RMSNorm if lightning else plain_norm)(width)
        self.linear = nn.Linear(width, features)
        self.adaLN_modulation = modulation(width, 2)

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation(of_tokens(c)).chunk(2, -1)
        return self.linear(self.norm_final(x) * (1 + scale) + shift)


class Times(nn.Module):
    """Sinusoids of DiT, or with `fourier` the random frequencies of RAE."""

    def __init__(self, width, *, fourier):
        super().__init__()
        if fourier:
            self.W = nn.Parameter(torch.randn(256), requires_grad=False)
        self.fourier = fourier
        inputs = 512 if fourier else 256
        self.mlp = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        if self.fourier:
            angles = t[:, None] * self.W[None] * 2 * torch.pi
            return self.mlp(torch.cat([angles.sin(), angles.cos()], -1))
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


class Labels(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)


class Patches(nn.Module):
    def __init__(self, channels, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).mT


def positions(side, width):
    """The column's sines and cosines, then the row's, as numpy computes them in float64."""
    omega = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4))
    column, row = np.meshgrid(*[np.arange(side, dtype=np.float32)] * 2)
    parts = [f(np.outer(axis, omega)) for axis in (column, row) for f in (np.sin, np.cos)]
    return np.concatenate(parts, 1)[None].astype(np.float32)


class Original(nn.Module):
    def finish(self, side, width):
        """Draws all weights, as large as makes every part of a network matter."""
        self.pos_embed = nn.Parameter(torch.empty(1, side * side, width), requires_grad=False)
        if self.pos_embed.is_meta:
            return
        for name, p in self.named_parameters():
            if name == "pos_embed":
                p.data.copy_(torch.from_numpy(positions(side, width)))
            elif name != "t_embedder.W":
                inputs = 4 if p.ndim == 1 or "table" in name else p[0].numel()
                p.data.normal_(std=0.7 / math.sqrt(inputs))
                p.data += 1.0 if "norm" in name else 0.0
        self.requires_grad_(False)

    def keep(self, **features):
        self.features |= {name: x.detach() for name, x in features.items()}

    def field(self, x, channels, patch):
        side = math.isqrt(x.shape[1])
        x = x.unflatten(1, (side, side)).unflatten(-1, (patch, patch, channels))
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


class Transformer(Original):
    """SiT; DiT, which returns all channels; LightningDiT, with `fourier` that of RAE and RJF."""

    def __init__(
        self,
        side,
        channels,
        patch,
        width,
        depth,
        heads,
        num_classes,
        *,
        learn_sigma=False,
        lightning=False,
        qk_norm=False,
        fourier=False,
    ):
        super().__init__()
        self.patch, self.channels = patch, channels
        self.out_channels = 2 * channels if learn_sigma else channels
        self.x_embedder = Patches(channels, width, patch)
        self.t_embedder = Times(width, fourier=fourier)
        self.y_embedder = Labels(num_classes, width)
        self.feat_rope = Rope(width // heads, side // patch) if lightning else nn.Identity()
        options = dict(lightning=lightning, qk_norm=qk_norm)
        self.blocks = nn.ModuleList(Block(width, heads, **options) for _ in range(depth))
        features = patch * patch * self.out_channels
        self.final_layer = FinalLayer(width, features, lightning=lightning)
        self.finish(side // patch, width)

    def forward(self, x, t, y):
        self.features = {}
        x = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder.embedding_table(y)
        self.keep(embed=x, condition=F.silu(c))
        for n, block in enumerate(self.blocks):
            x = block(x, c, self.feat_rope)
            self.keep(**{f"block_{n}": x})
        x = self.field(self.final_layer(x, c), self.out_channels, self.patch)
        self.keep(head=x)
        return x.split(self.channels, 1)[0]

    def forward_with_cfg(self, x, t, y, cfg_scale):
        """Of rows with labels, then the same rows without: only the first 3 channels are guided."""
        labelled = x.chunk(2)[0]
        out = self(torch.cat([labelled, labelled]), t, y)
        with_label, without = (half[:, :3] for half in out.chunk(2))
        guided = without + cfg_scale * (with_label - without)
        return torch.cat([torch.cat([guided, guided]), out[:, 3:]], 1)


class DiTDH(Original):
    """DiTwDDTHead of RAE with patch 1."""

    def __init__(self, side, channels, widths, depths, heads, num_classes, *, qk_norm=False):
        super().__init__()
        self.channels, self.depth = channels, depths[0]
        self.s_embedder = Patches(channels, widths[0], 1)
        self.x_embedder = Patches(channels, widths[1], 1)
        self.s_projector = nn.Linear(*widths) if widths[0] != widths[1] else nn.Identity()
        self.t_embedder = Times(widths[0], fourier=True)
        self.y_embedder = Labels(num_classes, widths[0])
        self.enc_feat_rope = Rope(widths[0] // heads[0], side)
        self.dec_feat_rope = Rope(widths[1] // heads[1], side)
        self.blocks = nn.ModuleList(
            Block(width, h, lightning=True, qk_norm=qk_norm)
            for width, depth, h in zip(widths, depths, heads, strict=True)
            for _ in range(depth)
        )
        self.final_layer = FinalLayer(widths[1], channels, lightning=True)
        self.finish(side, widths[0])

    def forward(self, x, t, y):
        self.features = {}
        t = self.t_embedder(t)
        c = F.silu(t + self.y_embedder.embedding_table(y))
        s = self.s_embedder(x) + self.pos_embed
        self.keep(embed=s, condition=F.silu(c))
        for n, block in enumerate(self.blocks[: self.depth]):
            s = block(s, c, self.enc_feat_rope)
            self.keep(**{f"block_{n}": s})
        s = F.silu(t[:, None] + s)
        self.keep(tokens=s)
        s, x = self.s_projector(s), self.x_embedder(x)
        self.keep(head_embed=x, head_condition=F.silu(s))
        for n, block in enumerate(self.blocks[self.depth :]):
            x = block(x, s, self.dec_feat_rope)
            self.keep(**{f"head_block_{n}": x})
        x = self.field(self.final_layer(x, s), self.channels, 1)
        self.keep(head=x)
        return x
