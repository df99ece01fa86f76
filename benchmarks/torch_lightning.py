"""The LightningDiT of `sphere_jax.models.lightning_dit` in PyTorch, written as `torch_sit` is:
affine `F.rms_norm`, 2-D RoPE in real numbers, which torch.compile fuses, and SwiGLU."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.torch_sit import Block, TorchSiT


class LightningBlock(Block):
    def __init__(self, width: int, heads: int, mlp_ratio: float, grid: tuple[int, int]):
        super().__init__(width, heads, mlp_ratio)
        hidden = int(2 * mlp_ratio * width / 3)
        self.expand, self.contract = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = (nn.Parameter(torch.ones(width)) for _ in "12")
        angles = torch.from_numpy(axial_angles(grid, width // heads)).float()
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)
        x = x + gate1 * self.attention(rms_norm(x, self.norm1) * (1 + scale1) + shift1)
        gate, value = self.expand(rms_norm(x, self.norm2) * (1 + scale2) + shift2).chunk(2, -1)
        return x + gate2 * self.contract(F.silu(gate) * value)

    def attention(self, x):
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v)
        return self.projection(x.transpose(1, 2).reshape(batch, tokens, width))

    def turned(self, x):
        """Pairs of channels of (B, heads, N, head_dim), turned by their angles."""
        even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        pairs = even * self.cos - odd * self.sin, odd * self.cos + even * self.sin
        return torch.stack(pairs, -1).flatten(-2).to(x.dtype)


class TorchLightningDiT(TorchSiT):
    """Arguments and call as of `TorchSiT`."""

    def __init__(self, latent_shape, patch, width, *rest):
        super().__init__(latent_shape, patch, width, *rest)
        self.head_norm = nn.Parameter(torch.ones(width))

    def block(self, width, heads, mlp_ratio, grid):
        return LightningBlock(width, heads, mlp_ratio, grid)

    def norm(self, x):
        return rms_norm(x, self.head_norm)

    def load_norms(self, params):
        layers = params["blocks"]["layers"]
        for i, block in enumerate(self.blocks):
            for name in ("norm1", "norm2"):
                scale = np.array(layers[name]["scale"][i])
                getattr(block, name).copy_(torch.from_numpy(scale))
        self.head_norm.copy_(torch.from_numpy(np.array(params["head"]["norm"]["scale"])))


def rms_norm(x, scale):
    return F.rms_norm(x, scale.shape, scale, 1e-6)


def axial_angles(grid, head_dim):
    """(h w, head_dim / 2): the first half of the pairs turns with the row, the second with the
    column."""
    frequencies = 10000.0 ** (-2 * np.arange(head_dim // 4) / (head_dim // 2))
    rows, columns = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    angles = [np.outer(axis.ravel(), frequencies) for axis in (rows, columns)]
    return np.concatenate(angles, 1)
