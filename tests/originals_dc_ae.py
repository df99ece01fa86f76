"""HAE's decoder and stem in PyTorch, with random weights under the names of wkdgnsgo/HAE."""

import torch
from torch import nn
from torch.nn import functional as F


class SampleRMS(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width, 1, 1).uniform_(0.5, 1.5))

    def forward(self, x):
        return self.weight * x / (x.square().mean((1, 2, 3), keepdim=True) + 1e-6).sqrt()


class ConvLayer(nn.Module):
    def __init__(self, inputs, outputs, size=3, *, stride=1, groups=1, bias=True, normed=False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=bias)
        self.norm = SampleRMS(outputs) if normed else nn.Identity()

    def forward(self, x):
        return self.norm(self.conv(x))


class Residual(nn.Module):
    def __init__(self, main, shortcut=lambda x: x):
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x):
        return self.main(x) + self.shortcut(x)


class ResMain(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = ConvLayer(width, width)
        self.conv2 = ConvLayer(width, width, bias=False, normed=True)

    def forward(self, x):
        return self.conv2(F.silu(self.conv1(x)))


class LiteMLA(nn.Module):
    """Heads of 32 channels; q, k, v of a head lie together."""

    def __init__(self, width, normed):
        super().__init__()
        self.qkv = ConvLayer(width, 3 * width, 1, bias=False)
        self.proj = ConvLayer(width, width, 1, bias=False, normed=normed)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(1, (-1, 3, 32)).flatten(4).unbind(2)  # (B, heads, 32, N)
        weights = torch.relu(k).mT @ torch.relu(q)  # (B, heads, keys, queries)
        mixed = v @ weights / (weights.sum(2, keepdim=True) + 1e-15)
        return self.proj(mixed.flatten(1, 2).unflatten(2, x.shape[2:]))


class GLUMBConv(nn.Module):
    def __init__(self, width, normed):
        super().__init__()
        self.inverted_conv = ConvLayer(width, 8 * width, 1)
        self.depth_conv = ConvLayer(8 * width, 8 * width, groups=8 * width)
        self.point_conv = ConvLayer(4 * width, width, 1, bias=False, normed=normed)

    def forward(self, x):
        value, gate = self.depth_conv(F.silu(self.inverted_conv(x))).chunk(2, 1)
        return self.point_conv(value * F.silu(gate))


class EViTBlock(nn.Module):
    def __init__(self, width, normed):
        super().__init__()
        self.context_module = Residual(LiteMLA(width, normed))
        self.local_module = Residual(GLUMBConv(width, normed))

    def forward(self, x):
        return self.local_module(self.context_module(x))


class InterpolateConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = ConvLayer(inputs, outputs)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class OpSequential(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.op_list = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.op_list:
            x = layer(x)
        return x


def upsample(inputs, outputs):
    def shortcut(x):
        return F.pixel_shuffle(x.repeat_interleave(4 * outputs // inputs, 1), 2)

    return Residual(InterpolateConv(inputs, outputs), shortcut)


class Decoder(nn.Module):
    """`widths` and `depths` from the coarsest level on; the first two are of EViT-GLU."""

    def __init__(self, widths, depths, normed):
        super().__init__()
        self.project_in = Residual(ConvLayer(widths[0], widths[0]))
        self.stages = nn.ModuleList()
        for n, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers = [upsample(widths[n - 1], width)] if n else []
            for _ in range(depth):
                layers.append(EViTBlock(width, normed) if n < 2 else Residual(ResMain(width)))
            self.stages.append(OpSequential(*layers))
        self.project_out = OpSequential(SampleRMS(width), nn.ReLU(), ConvLayer(width, 3))


class TorchHAE(nn.Module):
    """What of the autoencoder is not the frozen ViT. `normed`: RMS norms in EViT-GLU, too."""

    def __init__(self, widths, depths, normed=False):
        super().__init__()
        stem = [
            ConvLayer(3, 64, 7, stride=2, bias=False, normed=True),
            ConvLayer(64, 128, stride=2, bias=False, normed=True),
            ConvLayer(128, 256, stride=2, bias=False, normed=True),
            ConvLayer(256, widths[0], stride=2, bias=False),
        ]
        self.dino_model = nn.Module()
        self.dino_model.patch_embed = nn.Module()
        self.dino_model.patch_embed.cnn = nn.ModuleList(stem)
        self.decoder = Decoder(widths, depths, normed)
        self.eval()

    @torch.no_grad()
    def stem(self, x):
        maps = {}
        for n, layer in enumerate(self.dino_model.patch_embed.cnn, 1):
            x = layer(x)
            maps["tokens" if n == 4 else f"conv_{n}"] = x = x if n == 4 else F.silu(x)
        return maps

    @torch.no_grad()
    def decode(self, z):
        x = self.decoder.project_in(z)
        maps = {"project_in": x}
        for n, stage in enumerate(self.decoder.stages, 1):
            maps[f"stage_{n}"] = x = stage(x)
        return maps | {"images": self.decoder.project_out(x)}
