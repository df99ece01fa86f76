"""DINO, DINOv2 and DINOv3 in PyTorch, under the names of the files that Meta publishes."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def randomise(model, seed=0):
    """Random weights: fresh biases, LayerScale, tokens and norms would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda shape: torch.randn(shape, generator=generator)  # noqa: E731
    for name, parameter in model.named_parameters():
        shape = parameter.shape
        with torch.no_grad():
            if any(part in name for part in ("gamma", "lambda1", "norm")) and "bias" not in name:
                parameter.copy_(1 + 0.3 * draw(shape))
            elif name.endswith("bias"):
                parameter.copy_(0.3 * draw(shape))
            elif "token" in name or "pos" in name:
                parameter.copy_(draw(shape))
            else:
                parameter.copy_(draw(shape) / math.sqrt(parameter[0].numel()))
    return model.eval()


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.gamma


class MaskedLinear(nn.Linear):
    """A linear layer of q, k and v whose bias of k is masked out."""

    def __init__(self, width, outputs):
        super().__init__(width, outputs)
        mask = torch.ones(outputs)
        mask[width : 2 * width] = 0
        self.register_buffer("bias_mask", mask)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias * self.bias_mask)


class TorchAttention(nn.Module):
    def __init__(self, width, heads, masked):
        super().__init__()
        self.heads = heads
        self.qkv = (MaskedLinear if masked else nn.Linear)(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x, rope):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rope is not None:
            q, k = (turn(part, *rope) for part in (q, k))
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


def turn(x, sin, cos):
    """Rotates the last len(sin) tokens of x (B, heads, N, head_dim)."""
    first, x = x[:, :, : -len(sin)], x[:, :, -len(sin) :]
    left, right = x.chunk(2, dim=-1)
    return torch.cat([first, x * cos + torch.cat([-right, left], dim=-1) * sin], dim=2)


class TorchMLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class TorchSwiGLU(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, 4 * width), nn.Linear(width, 4 * width)
        self.w3 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class TorchBlock(nn.Module):
    def __init__(self, width, heads, eps, layer_scale, masked, swiglu):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attn = TorchAttention(width, heads, masked)
        self.mlp = (TorchSwiGLU if swiglu else TorchMLP)(width)
        self.ls1, self.ls2 = (Scale(width) if layer_scale else nn.Identity() for _ in range(2))

    def forward(self, x, rope=None):
        x = x + self.ls1(self.attn(self.norm1(x), rope))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Embedding(nn.Module):
    def __init__(self, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x):
        return self.proj(x)


class TorchDINO(nn.Module):
    """DINO without LayerScale, DINOv2 with it; registers bring the later resizing of positions."""

    def __init__(self, width, depth, heads, patch, grid, registers=0, layer_scale=True):
        super().__init__()
        self.grid, self.registers = grid, registers
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        if layer_scale:
            self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = Embedding(width, patch)
        self.blocks = nn.ModuleList(
            TorchBlock(width, heads, 1e-6, layer_scale, False, False) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, height, width):
        if (height, width) == (self.grid, self.grid):
            return self.pos_embed
        table = self.pos_embed[:, 1:].mT.unflatten(-1, (self.grid, self.grid))
        if self.registers:
            size = dict(size=(height, width), antialias=True)
        else:
            size = dict(scale_factor=((height + 0.1) / self.grid, (width + 0.1) / self.grid))
        table = F.interpolate(table, mode="bicubic", **size)
        assert table.shape[-2:] == (height, width)
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).mT], dim=1)

    @torch.no_grad()
    def states(self, x):
        """The output of every block."""
        x = self.patch_embed(x)
        positions = self.positions(*x.shape[2:])
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).mT], dim=1) + positions
        if self.registers:
            registers = self.register_tokens.expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
        return [x := block(x) for block in self.blocks]

    @torch.no_grad()
    def forward(self, x):
        return self.norm(self.states(x)[-1])


class Rope(nn.Module):
    """sin and cos for patch centres in [-1, 1] on either axis."""

    def __init__(self, head_dim, dtype):
        super().__init__()
        quarter = head_dim // 4
        periods = 100.0 ** (torch.arange(quarter) / quarter)
        self.register_buffer("periods", periods.to(dtype).float())  # those published are rounded

    def forward(self, height, width):
        rows = (torch.arange(height) + 0.5) / height * 2 - 1
        columns = (torch.arange(width) + 0.5) / width * 2 - 1
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
        angles = (2 * math.pi * places[:, :, None] / self.periods).flatten(1).tile(2)
        return angles.sin(), angles.cos()


class TorchDINOv3(nn.Module):
    def __init__(
        self, width, depth, heads, patch=16, registers=4, swiglu=False, rope_dtype=torch.bfloat16
    ):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.storage_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = Embedding(width, patch)
        self.rope_embed = Rope(width // heads, rope_dtype)
        self.blocks = nn.ModuleList(
            TorchBlock(width, heads, 1e-5, True, True, swiglu) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)

    @torch.no_grad()
    def states(self, x):
        """The output of every block."""
        x = self.patch_embed(x)
        rope, x = self.rope_embed(*x.shape[2:]), x.flatten(2).mT
        first = torch.cat([self.cls_token, self.storage_tokens], dim=1).expand(len(x), -1, -1)
        x = torch.cat([first, x], dim=1)
        return [x := block(x, rope) for block in self.blocks]

    @torch.no_grad()
    def forward(self, x):
        return self.norm(self.states(x)[-1])
