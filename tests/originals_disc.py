"""RAE's DINO discriminator and the PatchGAN of VQGAN in PyTorch, with random weights."""

import torch
from originals_dino import TorchDINO, randomise
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm


class LocalNorm(nn.Module):
    """Batch norm over groups of neighbouring samples (B, C, N)."""

    def __init__(self, width, group):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.group = group

    def forward(self, x):
        y = x.unflatten(0, (-1, self.group))
        y = (y - y.mean((1, 3), keepdim=True)) / (
            y.var((1, 3), keepdim=True, unbiased=False) + 1e-6
        ).sqrt()
        return y.flatten(0, 1) * self.weight[:, None] + self.bias[:, None]


def conv(inputs, outputs, size):
    padding = dict(padding=size // 2, padding_mode="circular")
    return spectral_norm(nn.Conv1d(inputs, outputs, size, **padding), eps=1e-12)


class TorchHead(nn.Module):
    def __init__(self, width, group):
        super().__init__()
        self.first, self.second, self.last = (
            conv(width, outputs, size) for outputs, size in ((width, 1), (width, 9), (1, 1))
        )
        self.norms = nn.ModuleList(LocalNorm(width, group) for _ in range(2))

    def forward(self, x):
        x = F.leaky_relu(self.norms[0](self.first(x)), 0.2)
        y = F.leaky_relu(self.norms[1](self.second(x)), 0.2)
        return self.last((x + y) / 2**0.5)[:, 0]


class TanhMLP(nn.Module):
    def __init__(self, of):
        super().__init__()
        self.fc1, self.fc2 = of.fc1, of.fc2

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class TorchDinoDisc(nn.Module):
    """Heads on blocks 2, 5, 8, 11 and 11 again of a DINO of 12 blocks, images in [-1, 1]."""

    def __init__(self, width, heads, grid, group):
        super().__init__()
        self.dino = randomise(TorchDINO(width, 12, heads, 8, grid, layer_scale=False))
        for block in self.dino.blocks:
            block.mlp = TanhMLP(block.mlp)
        self.heads = nn.ModuleList(TorchHead(width, group) for _ in range(5))
        self.side = 8 * grid

    def forward(self, images):
        x = F.interpolate(images, size=(self.side, self.side), mode="bilinear")
        mean, std = (
            torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        x = ((x + 1) / 2 - mean) / std
        x = self.dino.patch_embed(x).flatten(2).mT
        x = torch.cat([self.dino.cls_token.expand(len(x), -1, -1), x], 1) + self.dino.pos_embed
        taps = []
        for n, block in enumerate(self.dino.blocks):
            x = block(x)
            taps += [x] * {2: 1, 5: 1, 8: 1, 11: 2}.get(n, 0)
        return torch.stack(
            [head(tap[:, 1:].mT) for head, tap in zip(self.heads, taps, strict=True)], 1
        )


class TorchPatch(nn.Sequential):
    """PatchGAN with three layers of stride 2 and batch norm."""

    def __init__(self, width):
        layers, widths = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)], [width]
        for k, stride in ((1, 2), (2, 2), (3, 1)):
            widths.append(width * min(2**k, 8))
            layers += [
                nn.Conv2d(*widths[-2:], 4, stride, 1, bias=False),
                nn.BatchNorm2d(widths[-1]),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))


def augmented(x, draws):
    """Images (B, C, H, W) by draws (B, 5) of U(0, 1): translation, then colours."""
    height, width = x.shape[2:]
    moved = torch.zeros_like(x)
    for b, (row, column) in enumerate(draws[:, :2].tolist()):
        down = int(row * (2 * round(height / 8) + 1)) - round(height / 8)
        right = int(column * (2 * round(width / 8) + 1)) - round(width / 8)
        for i in range(height):
            for j in range(width):
                if 0 <= i + down < height and 0 <= j + right < width:
                    moved[b, :, i, j] = x[b, :, i + down, j + right]
    bright, saturation, contrast = draws[:, 2:].mT[:, :, None, None, None]
    x = moved + bright - 0.5
    x = torch.lerp(x.mean(1, keepdim=True), x, 2 * saturation)
    return torch.lerp(x.mean((1, 2, 3), keepdim=True), x, contrast + 0.5)
