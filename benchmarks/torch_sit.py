"""The SiT of `sphere_jax.models.sit` in PyTorch: the opponent in benchmarks, the oracle in tests.

Written as a PyTorch user would: `nn.Linear`, `F.layer_norm`, `F.scaled_dot_product_attention`,
`F.gelu(approximate="tanh")`; nothing slower than need be. `load` copies a JAX parameter tree in.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float = 4):
        super().__init__()
        hidden = int(mlp_ratio * width)
        self.heads = heads
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)
        x = x + gate1 * self.attention(norm(x) * (1 + scale1) + shift1)
        y = norm(x) * (1 + scale2) + shift2
        return x + gate2 * self.contract(F.gelu(self.expand(y), approximate="tanh"))

    def attention(self, x):
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.projection(x.transpose(1, 2).reshape(batch, tokens, width))


class TorchSiT(nn.Module):
    """z (B, h, w, d), t (B,), labels (B,) -> (B, h, w, d), as the JAX network."""

    def __init__(self, latent_shape, patch, width, depth, heads, num_classes, mlp_ratio=4):
        super().__init__()
        self.latent_shape, self.patch = latent_shape, patch
        token = patch * patch * latent_shape[-1]
        grid = latent_shape[0] // patch, latent_shape[1] // patch
        self.patches = nn.Linear(token, width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width)
        self.blocks = nn.ModuleList(self.block(width, heads, mlp_ratio, grid) for _ in range(depth))
        self.head_modulation, self.output = nn.Linear(width, 2 * width), nn.Linear(width, token)
        frequencies = torch.exp(-math.log(10000) * torch.arange(128) / 128)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("positions", sincos(grid, width)[None], persistent=False)

    def block(self, width, heads, mlp_ratio, grid):
        return Block(width, heads, mlp_ratio)

    def norm(self, x):
        """Of the head."""
        return norm(x)

    def load_norms(self, params):
        """Here they have no parameters."""

    def forward(self, z, t, labels):
        batch, (height, width, d), p = z.shape[0], self.latent_shape, self.patch
        rows, columns = height // p, width // p
        x = z.view(batch, rows, p, columns, p, d).permute(0, 1, 3, 2, 4, 5)
        x = self.patches(x.reshape(batch, rows * columns, p * p * d)) + self.positions
        angles = t[:, None] * self.frequencies
        c = self.time(torch.cat([angles.cos(), angles.sin()], -1)) + self.label(labels)
        c = F.silu(c)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.head_modulation(c)[:, None].chunk(2, -1)
        x = self.output(self.norm(x) * (1 + scale) + shift)
        x = x.view(batch, rows, columns, p, p, d).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, height, width, d)


def norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def sincos(grid, width):
    """Fixed position table, column half first, sin before cos."""
    frequencies = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1).float()


@torch.no_grad()
def load(model: TorchSiT, params: dict) -> TorchSiT:
    """Copies the parameters of the JAX SiT (any nested dict of arrays) into `model`."""

    def copy(layer, leaf, index=None):
        take = lambda x: np.array(x if index is None else x[index])  # noqa: E731
        layer.weight.copy_(torch.from_numpy(take(leaf["kernel"]).T))
        layer.bias.copy_(torch.from_numpy(take(leaf["bias"])))

    copy(model.patches, params["patches"])
    copy(model.time[0], params["time"]["hidden"])
    copy(model.time[2], params["time"]["output"])
    model.label.weight.copy_(torch.from_numpy(np.array(params["label"]["table"])))
    layers = params["blocks"]["layers"]
    for i, block in enumerate(model.blocks):
        copy(block.qkv, layers["attention"]["qkv"], i)
        copy(block.projection, layers["attention"]["projection"], i)
        copy(block.expand, layers["mlp"]["expand"], i)
        copy(block.contract, layers["mlp"]["contract"], i)
        copy(block.modulation, layers["modulation"], i)
    copy(model.head_modulation, params["head"]["modulation"])
    copy(model.output, params["head"]["output"])
    model.load_norms(params)
    return model
