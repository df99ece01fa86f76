"""The published PyTorch networks with random weights, under their published names."""

import torch
from torch import nn
from torch.nn import functional as F

# (layers of torchvision's `features`, where lpips cuts them into slices)
CUTS = {"vgg": (0, 4, 9, 16, 23, 30), "alex": (0, 2, 5, 8, 10, 12)}


def vgg_features(widths):
    layers, channels = [], 3
    for width, depth in zip(widths, (2, 2, 3, 3, 3), strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return layers


def alexnet_features(widths):
    a, b, c, d, e = widths
    return [
        *(nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU()),
    ]


class TorchLPIPS(nn.Module):
    """The package lpips 0.1.4, version v0.1; its state has the heads twice."""

    def __init__(self, net, widths):
        super().__init__()
        self.scaling_layer = nn.Module()
        for name, values in (("shift", [-0.030, -0.088, -0.188]), ("scale", [0.458, 0.448, 0.450])):
            self.scaling_layer.register_buffer(name, torch.tensor(values)[None, :, None, None])
        layers = {"vgg": vgg_features, "alex": alexnet_features}[net](widths)
        self.net = nn.Module()
        for k, (start, stop) in enumerate(zip(CUTS[net], CUTS[net][1:], strict=False), 1):
            part = nn.Sequential()
            for index in range(start, stop):
                part.add_module(str(index), layers[index])
            self.net.add_module(f"slice{k}", part)
        for k, width in enumerate(widths):
            head = nn.Module()
            head.model = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))
            nn.init.uniform_(head.model[1].weight)
            self.add_module(f"lin{k}", head)
        self.lins = nn.ModuleList(getattr(self, f"lin{k}") for k in range(5))
        self.eval()

    def taps(self, x):
        x, maps = (x - self.scaling_layer.shift) / self.scaling_layer.scale, []
        for k in range(1, 6):
            x = getattr(self.net, f"slice{k}")(x)
            maps.append(x)
        return maps

    def forward(self, x, y):
        total = 0
        for a, b, head in zip(self.taps(x), self.taps(y), self.lins, strict=True):
            a, b = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (a, b))
            total = total + head.model((a - b).square()).mean((1, 2, 3))
        return total


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of NCHW."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class MoveAxis(nn.Module):
    def __init__(self, source, to):
        super().__init__()
        self.source, self.to = source, to

    def forward(self, x):
        return x.movedim(self.source, self.to)


class TorchBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            MoveAxis(1, -1),
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            MoveAxis(-1, 1),
        )
        self.layer_scale = nn.Parameter(torch.rand(width, 1, 1))  # 1e-6 would hide the block

    def forward(self, x):
        return x + self.layer_scale * self.block(x)


class TorchConvNeXt(nn.Module):
    """torchvision's ConvNeXt."""

    def __init__(self, depths, widths, num_classes=1000):
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6))]
        for k, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if k:
                norm = ChannelNorm(widths[k - 1], eps=1e-6)
                layers.append(nn.Sequential(norm, nn.Conv2d(widths[k - 1], width, 2, 2)))
            layers.append(nn.Sequential(*[TorchBlock(width) for _ in range(depth)]))
        self.features = nn.Sequential(*layers)
        last = widths[-1]
        self.classifier = nn.Sequential(
            ChannelNorm(last, eps=1e-6), nn.Flatten(1), nn.Linear(last, num_classes)
        )
        for norm in self.modules():
            if isinstance(norm, nn.LayerNorm):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.5, 0.5)
        self.eval()

    def stages(self, x):
        maps = []
        for k, layer in enumerate(self.features):
            x = layer(x)
            if k % 2:
                maps.append(x)
        return maps

    def forward(self, x):
        return self.classifier(self.stages(x)[-1].mean((2, 3), keepdim=True))


def classifier_input(x):
    """NCHW in [0, 1] as the Sphere Encoder feeds its ConvNeXt."""
    x = F.interpolate(x, size=224, mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[None, :, None, None]) / std[None, :, None, None]


def nchw(images):
    return torch.from_numpy(images).movedim(-1, 1).contiguous()


def nhwc(tensor):
    return tensor.detach().movedim(1, -1).numpy()


def published(model):
    """Its state as numpy arrays."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
