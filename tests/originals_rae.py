"""The PyTorch decoder of RAE with random weights, under its published names."""

import torch
from torch import nn
from torch.nn import functional as F


def part(**children):
    """A module that only gives names to others."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


class TorchLayer(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        qkv = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        dense = part(dense=nn.Linear(width, width))
        self.attention = part(attention=part(**qkv), output=dense)
        self.intermediate = part(dense=nn.Linear(width, hidden))
        self.output = part(dense=nn.Linear(hidden, width))
        self.layernorm_before = nn.LayerNorm(width, eps=1e-12)
        self.layernorm_after = nn.LayerNorm(width, eps=1e-12)
        self.heads = heads

    def forward(self, x):
        y, own = self.layernorm_before(x), self.attention.attention
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)) for f in (own.query, own.key, own.value))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        y = torch.einsum("bhqk,bkhd->bqhd", weights.softmax(-1), v).flatten(2)
        x = x + self.attention.output.dense(y)
        return x + self.output.dense(F.gelu(self.intermediate.dense(self.layernorm_after(x))))


class TorchRAEDecoder(nn.Module):
    """Tokens (B, N, channels) of a square grid to images (B, 3, 16 grid, 16 grid)."""

    def __init__(self, grid, channels, depth, width, heads, hidden):
        super().__init__()
        self.grid = grid
        self.decoder_embed = nn.Linear(channels, width)
        self.decoder_pos_embed = nn.Parameter(positions(grid, width), requires_grad=False)
        self.trainable_cls_token = nn.Parameter(torch.randn(1, 1, width))  # a fresh one is zero
        self.decoder_layers = nn.ModuleList(TorchLayer(width, heads, hidden) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-12)
        self.decoder_pred = nn.Linear(width, 16 * 16 * 3)
        for norm in self.modules():
            if isinstance(norm, nn.LayerNorm):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.5, 0.5)
        self.eval()

    @torch.no_grad()
    def features(self, z):
        x, side = self.decoder_embed(z), int(z.shape[1] ** 0.5)
        if side != self.grid:
            maps = x.unflatten(1, (side, side)).movedim(-1, 1)
            maps = F.interpolate(maps, size=(self.grid, self.grid), mode="bilinear")
            x = maps.flatten(2).movedim(1, -1)
        x = torch.cat([self.trainable_cls_token.expand(len(z), -1, -1), x], 1)
        x = x + self.decoder_pos_embed
        found = {"embed": x}
        for n, layer in enumerate(self.decoder_layers):
            found[f"block_{n}"] = x = layer(x)
        return found | {"norm": self.decoder_norm(x)}

    @torch.no_grad()
    def forward(self, z):
        patches = self.decoder_pred(self.features(z)["norm"])[:, 1:]
        rows = patches.unflatten(1, (self.grid, self.grid)).unflatten(-1, (16, 16, 3))
        return torch.einsum("bhwpqc->bchpwq", rows).flatten(4, 5).flatten(2, 3)


def positions(grid, width):
    """(1, 1 + grid^2, width): zero, then for each token sin | cos of column, sin | cos of row."""
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], -1)
    table = torch.cat([line[None].expand(grid, -1, -1), line[:, None].expand(-1, grid, -1)], -1)
    return F.pad(table.flatten(0, 1), (0, 0, 1, 0))[None].float()
