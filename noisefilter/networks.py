"""Networks: each is ``standardize -> body -> features -> head``.

The input of the last linear layer is what the library calls the features of a row.
"""

from __future__ import annotations

from inspect import signature

import torch
from torch import Tensor, nn

from noisefilter.errors import ParameterError


class Standardize(nn.Module):
    """Subtract the training mean and divide by the training deviation, both kept as buffers.

    Works in the dtype that comes in (float64 columns with a large offset keep their digits) and
    hands on float32. Before :meth:`set` it changes nothing but the dtype.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(shape, dtype=torch.float64))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Store the statistics; a constant column is only centered, though rounding gives it a deviation."""
        varies = std > 1e-13 * mean.abs()
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.scale.copy_(torch.where(varies, std, torch.ones_like(std)).reshape(self.scale.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Standardize (b, ...) of any dtype to float32."""
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        return ((x.to(dtype) - self.mean.to(dtype)) / self.scale.to(dtype)).float()


class _Network(nn.Module):
    """What all networks here share: images get standardized per channel, rows per column."""

    standardize: Standardize
    body: nn.Module
    head: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, K)."""
        logits: Tensor = self.head(self.body(self.standardize(x)))
        return logits


class MLP(_Network):
    """Fully connected network for tables and embeddings.

    Tables have no crops and flips, and a plain network memorizes their wrong labels within a few
    epochs. Dropout and noise on the standardized inputs take their place. Measured on 3,000 flattened
    Fashion-MNIST images with 40 % symmetric noise, 30 epochs, AUC of the INN margin: 0.86 with neither, 0.95
    with dropout, 0.97 with both.

    Parameters
    ----------
    n_inputs : int
        Number of columns d.
    n_classes : int
        Number of classes K.
    hidden : tuple of int, default=(256, 256)
        Widths of the hidden layers.
    dropout : float, default=0.5
        Share of hidden units left out in training, in [0, 1).
    noise : float, default=0.5
        Standard deviation of the noise added to the standardized inputs in training.
    """

    def __init__(
        self,
        n_inputs: int,
        n_classes: int,
        hidden: tuple[int, ...] = (256, 256),
        dropout: float = 0.5,
        noise: float = 0.5,
    ):
        super().__init__()
        self.standardize = Standardize((n_inputs,))
        layers: list[nn.Module] = [_Noise(noise)]
        for width in hidden:
            layers += [
                nn.Linear(n_inputs, width, bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                _Dropout(dropout),
            ]
            n_inputs = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(n_inputs, n_classes)


class _Dropout(nn.Dropout):
    """Dropout by 16 random bits a unit on a CPU, where torch's own takes a sixth of the training.

    The share left out is rounded to the next of 65,536.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) -> (b, d)."""
        if not self.training or not self.p or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
        left_out = min(round(self.p * 2**16), 2**16 - 1)
        return x * ((drawn >= left_out - 2**15).to(x.dtype) * (2**16 / (2**16 - left_out)))


class _Noise(nn.Module):
    """Gaussian noise in training, nothing in evaluation."""

    def __init__(self, deviation: float):
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) -> (b, d)."""
        return x + self.deviation * torch.randn_like(x) if self.training and self.deviation else x


def _conv(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalization, ReLU."""
    padding = kernel // 2 if kernel == 3 else 0
    conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


class SmallCNN(_Network):
    """Five convolutions that train at about 10,000 CIFAR images a second on two CPU cores.

    A 2x2 stem of stride 2 (left out below 16 pixels) halves the picture before any 3x3 convolution
    runs; blocks of width 32, 64 and 128 follow, with pooling between them while there is something to pool.

    Parameters
    ----------
    n_channels, n_classes : int
        Channels of the images and number of classes K.
    image_size : int, default=32
        Shorter side of the images in pixels.
    """

    cpu_bfloat16 = True  # measured: 11,100 images/s against 8,000 in float32, inference 28,000 against 10,000

    def __init__(self, n_channels: int, n_classes: int, image_size: int = 32):
        super().__init__()
        self.standardize = Standardize((n_channels, 1, 1))
        layers: list[nn.Module] = []
        if image_size >= 16:
            layers.append(_conv(n_channels, 32, kernel=2, stride=2))
            n_channels, image_size = 32, image_size // 2
        layers.append(_conv(n_channels, 32))
        for width, convs in ((64, 2), (128, 1)):
            if image_size >= 4:
                layers.append(nn.MaxPool2d(2))
                image_size //= 2
            layers += [_conv(width // 2 if i == 0 else width, width) for i in range(convs)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(128, n_classes)


class SevenLayerCNN(_Network):
    """Six 3x3 convolutions (64, 64 | 128, 128 | 196, 16) and a linear head: the network of JoCoR and Jo-SRC.

    ``hidden=512`` puts Jo-SRC's 256-512-K head on it instead of the single linear layer (algorithm
    details from the official codes; the two papers' tables do not use the same head). Images of at
    least 8 pixels; those that are not square are pooled to a square before the head.
    """

    def __init__(self, n_channels: int, n_classes: int, image_size: int = 32, hidden: int | None = None):
        super().__init__()
        if image_size < 8:
            raise ParameterError(f"image_size must be at least 8 for SevenLayerCNN, got {image_size}.")
        self.standardize = Standardize((n_channels, 1, 1))
        layers: list[nn.Module] = []
        for n_in, n_out in ((n_channels, 64), (64, 128), (128, 196)):
            second = 16 if n_out == 196 else n_out
            layers += [_conv(n_in, n_out), _conv(n_out, second), nn.MaxPool2d(2)]
        layers += [nn.AdaptiveAvgPool2d(image_size // 8), nn.Flatten()]  # changes nothing in a square image
        n_features = 16 * (image_size // 8) ** 2
        if hidden is not None:
            layers += [nn.Linear(n_features, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden or n_features, n_classes)
        for layer in self.modules() if hidden is not None else ():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)


class _PreActBlock(nn.Module):
    """Pre-activation residual block: BN, ReLU, convolution, twice."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(n_in), nn.BatchNorm2d(n_out)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.shortcut = (
            nn.Conv2d(n_in, n_out, 1, stride, bias=False) if stride != 1 or n_in != n_out else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, n_in, h, w) -> (b, n_out, h / stride, w / stride)."""
        out = torch.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(torch.relu(self.bn2(self.conv1(out))))
        return out + skip


class PreActResNet18(_Network):
    """Pre-activation ResNet-18 for 32x32 images (He et al., 2016), as DivideMix and INN train it.

    The stem is 3x3 convolution and batch normalization, and there is no normalization after the
    last block: the form of DivideMix's code rather than of the ResNet paper.
    """

    def __init__(self, n_channels: int, n_classes: int, width: int = 64):
        super().__init__()
        self.standardize = Standardize((n_channels, 1, 1))
        stem = nn.Conv2d(n_channels, width, 3, 1, 1, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(width), nn.ReLU()]
        n_in = width
        for i in range(4):
            n_out = width * 2**i
            layers += [_PreActBlock(n_in, n_out, 1 if i == 0 else 2), _PreActBlock(n_out, n_out, 1)]
            n_in = n_out
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(n_in, n_classes)


class WideResNet28_2(_Network):
    """Wide ResNet 28-2 (Zagoruyko & Komodakis, 2016): INN's second architecture."""

    def __init__(self, n_channels: int, n_classes: int):
        super().__init__()
        self.standardize = Standardize((n_channels, 1, 1))
        layers: list[nn.Module] = [nn.Conv2d(n_channels, 16, 3, 1, 1, bias=False)]
        n_in = 16
        for n_out, stride in ((32, 1), (64, 2), (128, 2)):
            layers += [_PreActBlock(n_in, n_out, stride)]
            layers += [_PreActBlock(n_out, n_out, 1) for _ in range(3)]
            n_in = n_out
        layers += [nn.BatchNorm2d(n_in), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(n_in, n_classes)


class TorchvisionClassifier(nn.Module):
    """Any classifier of torchvision by name, untrained, with ``n_classes`` outputs.

    Parameters
    ----------
    name : str
        A name :func:`torchvision.models.get_model` knows, such as ``"resnet18"``.
    n_channels : int
        1 or 3; gray images are repeated to the three channels these networks want.
    n_classes : int
        Number of classes K.
    """

    def __init__(self, name: str, n_channels: int, n_classes: int):
        super().__init__()
        from torchvision.models import get_model  # heavy, and only needed here

        if n_channels not in (1, 3):
            raise ParameterError(f"n_channels must be 1 or 3 for torchvision's networks, got {n_channels}.")
        self.standardize = Standardize((n_channels, 1, 1))
        self.model = get_model(name, weights=None, num_classes=n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, K)."""
        x = self.standardize(x)
        out = self.model(x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x)
        logits: Tensor = out if isinstance(out, Tensor) else out.logits  # Inception returns a named tuple
        return logits


def network_arguments(network: type[nn.Module], shape: tuple[int, ...], n_classes: int) -> dict[str, int]:
    """Return the sizes that a network class asks for by name, for rows of this shape.

    ``(d,)`` rows offer ``n_inputs``, ``(channels, height, width)`` images ``n_channels`` and
    ``image_size``, both ``n_classes``; what the class has no parameter for is left out.
    """
    sizes = {"n_classes": n_classes}
    sizes |= (
        {"n_inputs": shape[0]} if len(shape) == 1 else {"n_channels": shape[0], "image_size": min(shape[1:])}
    )
    wanted = signature(network).parameters
    if missing := [n for n in ("n_inputs", "n_channels") if n in wanted and n not in sizes]:
        kind = "images" if missing == ["n_channels"] else "rows of shape (d,)"
        raise ParameterError(f"network {network.__name__} must be fed {kind}, got rows of shape {shape}.")
    return {name: size for name, size in sizes.items() if name in wanted}


def default_network(shape: tuple[int, ...]) -> type[nn.Module]:
    """Choose the network for rows of this shape: :class:`MLP` for ``(d,)``, else :class:`SmallCNN`."""
    return MLP if len(shape) == 1 else SmallCNN
