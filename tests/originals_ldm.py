"""AutoencoderKL under the names of LDM, which the FLUX and VA-VAE repositories keep, in PyTorch."""

import math

import torch
from torch import nn
from torch.nn import functional as F

GROUPS = 32


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        for name in ("q", "k", "v", "proj_out"):
            setattr(self, name, nn.Conv2d(width, width, 1))

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (conv(y).flatten(2) for conv in (self.q, self.k, self.v))
        weights = torch.softmax(torch.einsum("bcn,bcm->bnm", q, k) / math.sqrt(x.shape[1]), -1)
        return x + self.proj_out(torch.einsum("bnm,bcm->bcn", weights, v).reshape(x.shape))


class Resample(nn.Module):
    """Halves the grid, padded below and on the right, or doubles it."""

    def __init__(self, width, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(width, width, 3, 2 if down else 1, 0 if down else 1)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2))


class Level(nn.Module):
    def __init__(self, inputs, outputs, blocks, attention):
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.block = nn.ModuleList(Block(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.attn = nn.ModuleList(Attention(outputs) for _ in range(blocks if attention else 0))

    def forward(self, x):
        for n, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[n](x)
        for name in ("downsample", "upsample"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x


class Middle(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block_1, self.block_2 = Block(width, width), Block(width, width)
        self.attn_1 = Attention(width)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, latent_channels, widths, attention_levels):
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        inputs = (widths[0], *widths)
        self.down = nn.ModuleList(
            Level(inputs[k], width, 2, k in attention_levels) for k, width in enumerate(widths)
        )
        for level, width in zip(self.down[:-1], widths[:-1], strict=True):
            level.downsample = Resample(width, down=True)
        self.mid = Middle(widths[-1])
        self.norm_out = nn.GroupNorm(GROUPS, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return self.quant_conv(x) if hasattr(self, "quant_conv") else x


class Decoder(nn.Module):
    def __init__(self, latent_channels, widths, attention_levels):
        super().__init__()
        self.conv_in = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        inputs = (*widths[1:], widths[-1])
        self.up = nn.ModuleList(
            Level(inputs[k], width, 3, k in attention_levels) for k, width in enumerate(widths)
        )
        for level, width in zip(self.up[1:], widths[1:], strict=True):
            level.upsample = Resample(width, down=False)
        self.norm_out = nn.GroupNorm(GROUPS, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z):
        z = self.post_quant_conv(z) if hasattr(self, "post_quant_conv") else z
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class AutoencoderKL(nn.Module):
    """`quant` puts the 1x1 convolutions beside encoder and decoder, as LDM does.

    With `statistics` they stand inside of them and latents pass a batch norm, as in FLUX.2.
    """

    def __init__(self, latent_channels, widths, attention_levels=(), quant=True, statistics=False):
        super().__init__()
        self.encoder = Encoder(latent_channels, widths, attention_levels)
        self.decoder = Decoder(latent_channels, widths, attention_levels)
        if quant:
            moments = 2 * latent_channels
            (self.encoder if statistics else self).quant_conv = nn.Conv2d(moments, moments, 1)
            (self.decoder if statistics else self).post_quant_conv = nn.Conv2d(
                latent_channels, latent_channels, 1
            )
        if statistics:
            self.bn = nn.BatchNorm2d(4 * latent_channels, eps=1e-4, affine=False)
        randomize(self)
        self.eval()

    def encode(self, x):
        x = self.encoder(x)
        return self.quant_conv(x) if hasattr(self, "quant_conv") else x

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z) if hasattr(self, "post_quant_conv") else z)


def randomize(model):
    """Norms that are not the identity, attention that is not uniform."""
    for name, layer in model.named_modules():
        if name.rpartition(".")[-1] in ("q", "k", "to_q", "to_k"):
            layer.weight.data *= 4
        if isinstance(layer, nn.GroupNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
